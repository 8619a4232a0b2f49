//! The core's work grows with the number of VMs, and not with the number of pairs of them.

use super::*;

const CROWD: u32 = 200;
/// How often an input may look at each VM: that many steps of it look at all of them.
const PASSES: u64 = 60;

/// A host whose memory one VM has, and a crowd that waits to start.
fn crowd() -> (World, RunId, Vec<u64>) {
    let mut world = World::new(4096);
    let hog = world.up(definition("hog", 4096, ""));
    for _ in 0..8 {
        world.report(hog, Pages(0));
        world.say(hog, FromVmm::Want(mib(4096)));
        world.pass(SECOND);
    }
    let create = |n| Request::Create(Box::new(definition(&format!("a{n:03}"), 32, "")));
    let requests = (0..CROWD).map(|n| world.ask(create(n))).collect();
    let waiting = world.core.runs.values().filter(|run| run.is_queued()).count();
    assert!(waiting > 150, "{waiting}");
    (world, hog, requests)
}

/// How often each VM is looked at while `work` is done.
fn passes(world: &mut World, work: impl FnOnce(&mut World)) -> u64 {
    world.core.looks.set(0);
    work(world);
    world.core.looks.get() / u64::from(CROWD)
}

#[test]
fn memory_that_comes_back_to_a_waiting_crowd_costs_no_look_at_all_pairs() {
    let (mut world, hog, _) = crowd();
    let back = passes(&mut world, |world| world.say(hog, FromVmm::Return(Pages(1))));
    assert!(back <= PASSES, "{back}");
    let another = Request::Create(Box::new(definition("b", 32, "")));
    let another = passes(&mut world, |world| {
        world.ask(another);
    });
    assert!(another <= PASSES, "{another}");
    let second = passes(&mut world, |world| world.pass(SECOND));
    assert!(second <= PASSES, "{second}");
}

#[test]
fn a_crowd_that_asks_at_once_is_answered_in_one_round() {
    let mut world = World::new(65_536);
    let runs: Vec<RunId> = (0..CROWD).map(|n| world.up(definition(&format!("a{n:03}"), 128, ""))).collect();
    let before: Vec<Pages> = runs.iter().map(|run| world.granted[run]).collect();
    let asked = passes(&mut world, |world| {
        world.busy = true;
        runs.iter().for_each(|run| world.say(*run, FromVmm::Want(Pages::CHUNK)));
        world.busy = false;
        world.input(Input::Tick);
    });
    assert!(asked <= PASSES, "{asked}");
    let grew = runs.iter().zip(before).filter(|(run, before)| world.granted[run] > *before).count();
    assert_eq!(grew, runs.len());
}

#[test]
fn what_is_told_of_pools_costs_no_look_at_each_vm_for_each_pool() {
    let mut world = World::new(65_536);
    for n in 0..CROWD {
        let parent = if n == 0 { "/".to_owned() } else { format!("p{:03}", (n - 1) / 2) };
        world.pool(serde_json::json!({"name": format!("p{n:03}"), "parent": parent})).unwrap();
        world.up(definition(&format!("a{n:03}"), 128, &format!("pool = 'p{n:03}'")));
    }
    for request in [Request::Host, Request::Pools, Request::Overview, Request::Explain] {
        let told = passes(&mut world, |world| {
            world.answer(request.clone()).unwrap();
        });
        assert!(told <= PASSES, "{request:?}: {told}");
    }
    let one = passes(&mut world, |world| {
        world.answer(Request::ExplainVm(name("a100"))).unwrap();
    });
    assert!(one <= PASSES, "{one}");
}

#[test]
fn a_crowd_is_refused_together_without_a_look_at_all_pairs() {
    let (mut world, _, requests) = crowd();
    let waits: Vec<RunId> =
        world.core.runs.values().filter(|run| run.is_queued()).map(|run| run.id).collect();
    let refused = passes(&mut world, |world| world.pass(REQUEST_TIMEOUT));
    assert!(refused <= PASSES, "{refused}");
    assert!(waits.iter().all(|run| world.core.run(*run).is_none()));
    let why = world.answers.remove(requests.last().unwrap()).unwrap().unwrap_err();
    assert!(why.kind == FailureKind::NoMemory && why.text.contains("is free now"), "{}", why.text);
}
