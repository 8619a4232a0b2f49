use plimsoll_protocol::Percent;
use plimsoll_protocol::stall::StallCause;

use super::*;

/// Seconds pass, in each of which the VM is stalled for `part` of the time and waits for `wanted`.
fn run(world: &mut World, run: RunId, seconds: u32, part: f64, wanted: Pages) {
    for _ in 0..seconds {
        let before = world.core.run(run).unwrap().facts;
        let grows = SECOND.mul_f64(part);
        world.clock.at += SECOND;
        world.pass(SECOND);
        let grant = world.granted[&run];
        let facts = Facts {
            grant,
            held: grant,
            wanted,
            paging_stuck: true,
            stall_some: before.stall_some + grows,
            stall_full: before.stall_full + grows,
            ..Facts::default()
        };
        world.say(run, FromVmm::Report(facts));
    }
}

fn events(world: &mut World) -> Vec<String> {
    match world.answer(Request::Events(0)) {
        Ok(Answer::Events(events)) => events.into_iter().map(|event| event.text).collect(),
        other => panic!("{other:?}"),
    }
}

fn at_its_limit(world: &mut World) -> RunId {
    let run = world.up(definition("a", 512, "limit = '128MiB'"));
    world.say(run, FromVmm::Want(mib(300)));
    assert_eq!((world.granted[&run], world.vm("a").wanted), (mib(128), Bytes::mib(300 - 64)));
    run
}

#[test]
fn a_vm_that_stands_still_at_its_limit_says_so_since_when_and_why() {
    let mut world = World::new(640);
    let a = at_its_limit(&mut world);
    world.up(definition("b", 64, ""));
    let begun = world.clock.at;
    run(&mut world, a, 6, 1.0, Pages(1));
    let vm = world.vm("a");
    assert_eq!((vm.wanted, vm.stalled, vm.stall.full.total_ms), (Pages(1).bytes(), None, 6000));
    run(&mut world, a, 4, 1.0, Pages(1));
    let (vm, host) = (world.vm("a"), world.host());
    let stalled = vm.stalled.unwrap();
    assert_eq!((stalled.since, stalled.cause), (begun, StallCause::AtLimit(Bytes::mib(128))));
    assert_eq!(vm.stall.full.avg10, Percent::of_fraction(1.0 - (-1.0f64).exp()));
    assert_eq!((host.stalled, host.stall.full.total_ms), (1, 10_000));
    assert_eq!(host.stall.some.avg10, Percent::of_fraction((1.0 - (-1.0f64).exp()) / 2.0), "of two VMs");
    let said = "at its limit (128MiB) and nothing left to page out: the guest is stalled. Raise the limit or add swap space";
    assert_eq!(events(&mut world).iter().filter(|text| *text == said).count(), 1);
    run(&mut world, a, 1, 0.0, Pages(0));
    assert_eq!(
        (world.vm("a").stalled, world.host().stalled),
        (None, 0),
        "it is over, though not for the averages"
    );
    run(&mut world, a, 1, 1.0, Pages(1));
    assert_eq!(world.vm("a").stalled.map(|stalled| stalled.since), Some(begun), "it is not");
    run(&mut world, a, 30, 0.0, Pages(0));
    let vm = world.vm("a");
    assert_eq!((vm.stalled, vm.stall.full.total_ms, world.host().stalled), (None, 11_000, 0));
    let said = events(&mut world).into_iter().filter(|text| text.contains("stalled")).collect::<Vec<_>>();
    assert_eq!(said[1..], ["the guest is no longer stalled: it stood still for 11 s"]);
}

#[test]
fn the_cause_follows_what_a_vm_waits_for() {
    let mut world = World::new(640);
    let a = at_its_limit(&mut world);
    run(&mut world, a, 10, 1.0, Pages(0));
    assert_eq!(world.vm("a").stalled.unwrap().cause, StallCause::Swap);
    let facts = Facts { blocked: true, wanted: Pages(9), ..world.core.run(a).unwrap().facts };
    world.say(a, FromVmm::Report(facts));
    assert_eq!(world.vm("a").stalled.unwrap().cause, StallCause::Held);
    world.say(a, FromVmm::Report(Facts { paging_stuck: false, blocked: false, ..facts }));
    assert_eq!(world.vm("a").stalled.unwrap().cause, StallCause::PagesAtLimit(Bytes::mib(128)));
}

#[test]
fn a_claim_of_stalls_counts_for_no_more_than_the_time_that_passes() {
    let mut world = World::new(640);
    let a = world.up(definition("a", 256, ""));
    let lie = Facts { stall_some: Duration::MAX, stall_full: Duration::MAX, ..Facts::default() };
    for _ in 0..5 {
        world.pass(SECOND);
        world.say(a, FromVmm::Report(lie));
        world.say(a, FromVmm::Report(lie));
    }
    let stall = world.vm("a").stall;
    assert_eq!((stall.some.total_ms, stall.full.total_ms), (5000, 5000));
    world.pass(SECOND);
    world.say(a, FromVmm::Report(Facts::default()));
    assert_eq!(world.vm("a").stall.full.total_ms, 5000, "it never falls");
}

#[test]
fn the_history_tells_the_stalls_since_its_last_sample() {
    let mut world = World::new(640);
    let a = world.up(definition("a", 256, ""));
    run(&mut world, a, 6, 0.5, Pages(0));
    run(&mut world, a, 6, 0.0, Pages(0));
    let all = Request::History { vm: None, after: None, limit: usize::MAX };
    let Ok(Answer::History(recording)) = world.answer(all) else { panic!() };
    let history = recording.history(None, world.clock.at);
    let stalls: Vec<Percent> = history.samples.iter().map(|sample| sample.stall_full).collect();
    assert_eq!(
        stalls,
        [0.0, 0.5, 0.1].map(Percent::of_fraction),
        "the first report came after the first sample"
    );
}

#[test]
fn a_vm_that_waits_at_its_limit_pages_down_to_it() {
    let mut world = World::new(640);
    let a = at_its_limit(&mut world);
    run(&mut world, a, 1, 0.0, Pages(0));
    // Grants have raised the level a little above the limit, by less than levels usually move.
    let raised = mib(128) + Pages(20);
    world.levels.insert(a, (raised, false));
    world.core.run_mut(a).unwrap().paging.level = Some(raised);
    run(&mut world, a, 1, 1.0, Pages(0));
    world.pass(SECOND);
    assert_eq!(world.levels[&a], (raised, false), "it waits for nothing");
    run(&mut world, a, 1, 1.0, Pages(1));
    world.pass(SECOND);
    assert_eq!(world.levels[&a], (mib(128), false));
}
