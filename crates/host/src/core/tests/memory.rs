use serde_json::json;

use super::*;
use crate::config::Config;

#[test]
fn another_vms_reservation_is_never_given_away() {
    let mut world = World::new(640);
    let reserved = world.up(definition("a", 256, "reservation = '256MiB'"));
    let greedy = world.up(definition("b", 1024, "shares = 200000000"));
    for _ in 0..200 {
        world.say(greedy, FromVmm::Want(mib(1024)));
        world.pass(SECOND);
        world.report(greedy, Pages(0));
    }
    let lacks = mib(256) - world.granted[&reserved];
    assert!(world.core.ledger.free() >= lacks);
    world.say(reserved, FromVmm::Want(lacks));
    assert_eq!(world.granted[&reserved], mib(256));
}

#[test]
fn what_other_programs_take_is_called_back_from_vms_and_given_again_when_it_returns() {
    let mut world = World::new(640);
    let run = world.up(definition("a", 512, ""));
    world.say(run, FromVmm::Want(mib(450)));
    world.report(run, Pages(0));
    let usable = |world: &mut World, usable| world.input(usable_input(Bytes::mib(usable)));
    usable(&mut world, 300);
    assert_eq!((world.host().taken, world.host().free), (Bytes::mib(340), Bytes::ZERO));
    for _ in 0..60 {
        world.pass(SECOND);
        follow(&mut world, run);
    }
    let host = world.host();
    assert!(
        host.granted + host.overhead + host.free == host.budget && host.budget == Bytes::mib(300),
        "{host:?}"
    );
    assert!(host.free > Bytes::ZERO, "{host:?}");
    usable(&mut world, 700);
    for _ in 0..60 {
        world.pass(SECOND);
        follow(&mut world, run);
    }
    assert_eq!((world.host().taken, world.vm("a").balloon_target), (Bytes::ZERO, Bytes::ZERO));
}

#[test]
fn what_other_programs_have_taken_is_promised_to_no_vm_that_holds_it() {
    let mut world = World::new(8192);
    world.pool(json!({"name": "prod"})).unwrap();
    let run = world.up(definition("a", 6144, "pool = 'prod'"));
    for _ in 0..60 {
        world.say(run, FromVmm::Want(mib(6144) - world.granted[&run]));
        world.report(run, Pages(0));
        world.pass(SECOND);
    }
    assert_eq!(world.granted[&run], mib(6144));
    world.input(usable_input(Bytes::mib(4096)));
    assert!(world.host().budget > Bytes::mib(6144), "it is not back yet");
    let refused = |answer: Result<Answer, Failure>| answer.is_err_and(|e| e.kind == FailureKind::NoMemory);
    assert!(refused(world.set("a", json!({"reservation": "6GiB"}))));
    assert!(refused(world.set_pool("prod", json!({"reservation": "6GiB"}))));
    world.set("a", json!({"reservation": "3GiB"})).unwrap();
}

#[test]
fn an_automatic_budget_follows_what_the_machine_has_and_tells() {
    let mut world = World::new(640);
    let thresholds = Config::default().thresholds();
    world.core.settings.automatic = Some(AutomaticBudget { thresholds, told: mib(640) });
    let run = world.up(definition("a", 512, ""));
    world.say(run, FromVmm::Want(mib(450)));
    world.report(run, Pages(0));
    let seconds = |world: &mut World, usable, n| {
        for _ in 0..n {
            world.pass(SECOND);
            world.input(usable_input(Bytes::mib(usable)));
            follow(world, run);
        }
        world.host()
    };
    let told = |world: &World| {
        let budget = |event: &Event| event.text.starts_with("the budget").then(|| event.text.clone());
        world.core.events.after(0).iter().filter_map(budget).collect::<Vec<_>>()
    };
    let host = seconds(&mut world, 620, 5);
    assert_eq!((host.budget, host.taken, told(&world).len()), (Bytes::mib(620), Bytes::ZERO, 0));
    let host = seconds(&mut world, 300, 60);
    assert_eq!((host.budget, host.taken), (Bytes::mib(300), Bytes::ZERO), "VMs have given");
    assert_eq!(host.high_threshold, Thresholds::sliding(Bytes::mib(300)).clear.bytes());
    let told_then = told(&world);
    assert!(told_then.len() == 1 && told_then[0].contains("from 640MiB to 300MiB"), "{told_then:?}");
    let host = seconds(&mut world, 900, 1);
    assert_eq!(host.budget, Bytes::mib(310), "a sixtieth of the difference in a second");
    let host = seconds(&mut world, 900, 600);
    assert!(
        host.budget > Bytes::mib(899) && host.budget <= Bytes::mib(900),
        "beyond the first budget: {host:?}"
    );
    assert!(told(&world).last().unwrap().starts_with("the budget rises"));
    seconds(&mut world, 0, 1);
    assert_eq!(world.host().state, plimsoll_policy::State::Low);
}

#[test]
fn an_excess_is_told_and_the_kernels_numbers_kept_though_guests_are_looked_at_seldom() {
    let mut world = World::new(640);
    let run = world.up(definition("a", 256, ""));
    let ram = Bytes::mib(7);
    world.input(Input::Guests(vec![(run, ram)]));
    let process = |mib| ProcessMemory { anonymous: Bytes::mib(mib), shared: Bytes::ZERO };
    for mib in [10, 300, 301] {
        world.input(Input::Processes(vec![(run, process(mib))]));
    }
    let told = world.core.events.after(0).iter().filter(|event| event.text.contains("holds 300MiB")).count();
    assert_eq!((told, world.vm("a").kernel), (1, ram));
}

#[test]
fn a_vmm_that_lasts_in_holding_more_than_it_may_is_ended_and_a_late_one_is_not() {
    let mut world = World::new(640);
    let (hog, late) = (world.up(definition("hog", 256, "")), world.up(definition("late", 256, "")));
    let look = |world: &mut World, of_late| {
        let process = |mib| ProcessMemory { anonymous: Bytes::mib(mib), shared: Bytes::ZERO };
        world.input(Input::Processes(vec![(hog, process(300)), (late, process(of_late))]));
    };
    for second in 0..7 {
        look(&mut world, if second == 4 { 10 } else { 300 });
        assert_eq!(world.killed, []);
    }
    look(&mut world, 300);
    assert_eq!(world.killed, [hog]);
    world.input(Input::Exited(hog, "signal 9".into()));
    let exit = world.vm("hog").exit.unwrap().to_string();
    assert!(exit.contains("holds 300MiB, which is more than") && exit.contains("for 8 s"), "{exit}");
    // Frames of others, and those that it compares with, are not its own.
    let shared = ProcessMemory { anonymous: Bytes::mib(10), shared: Bytes::mib(1) };
    (0..20).for_each(|_| world.input(Input::Processes(vec![(late, shared)])));
    assert_eq!(world.killed, [hog]);
}

#[test]
fn every_want_is_answered_so_that_a_vmm_can_make_do() {
    let mut world = World::new(128);
    let run = world.up(definition("a", 256, ""));
    world.say(run, FromVmm::Want(mib(200)));
    let clock = world.clock;
    world.core.handle(clock, Input::Message(run, Box::new(FromVmm::Want(mib(200)))));
    let effects = world.core.handle(clock, Input::Serve);
    assert!(effects.iter().any(|e| matches!(e, Effect::Grant { .. })), "{effects:?}");
}

#[test]
fn who_waits_is_served_when_memory_comes_back_the_smallest_need_first() {
    let mut world = World::new(256);
    let holder = world.up(definition("holder", 256, "shares = 1"));
    let (small, large) =
        (world.up(definition("small", 128, "shares = 100000")), world.up(definition("large", 256, "")));
    world.say(holder, FromVmm::Want(mib(256)));
    world.say(large, FromVmm::Want(mib(200)));
    world.say(small, FromVmm::Want(mib(2)));
    assert!(world.vm("large").wanted > Bytes::ZERO);
    world.pass(SECOND);
    let before = (world.granted[&small], world.granted[&large]);
    world.input(Input::Exited(holder, "signal 9".into()));
    assert_eq!(world.vm("small").wanted, Bytes::ZERO);
    assert!(world.granted[&large] > before.1 && world.granted[&small] >= before.0);
}

#[test]
fn memory_moves_from_an_idle_vm_to_one_that_needs_it_and_balloons_deflate_afterwards() {
    let mut world = World::new(640);
    let runs: Vec<RunId> = ["a", "b", "c", "d"].iter().map(|vm| world.up(definition(vm, 256, ""))).collect();
    // The first three take what they can get, then fall idle.
    for &run in &runs[..3] {
        world.say(run, FromVmm::Want(mib(200)));
        world.report(run, Pages(0));
    }
    world.idle = runs[..3].to_vec();
    for _ in 0..120 {
        world.pass(SECOND);
        for &run in &runs[..3] {
            world.say(run, FromVmm::Want(Pages(0)));
            follow(&mut world, run);
        }
        world.report(runs[3], Pages(0));
    }
    // Then the fourth needs everything.
    for _ in 0..60 {
        let lacks = mib(256) - world.granted[&runs[3]];
        world.say(runs[3], FromVmm::Want(lacks.min(mib(16))));
        world.pass(SECOND);
        for &run in &runs[..3] {
            follow(&mut world, run);
        }
        world.report(runs[3], Pages(0));
    }
    assert!(world.granted[&runs[3]] >= mib(240), "{}", world.granted[&runs[3]].bytes());
    assert!(world.vm("a").balloon_target > Bytes::ZERO);
    assert_eq!(world.vm("a").balloon, BalloonHealth::Following);
    world.input(Input::Exited(runs[3], "signal 9".into()));
    for _ in 0..20 {
        world.pass(SECOND);
    }
    assert_eq!(world.vm("a").balloon_target, Bytes::ZERO);
}

#[test]
fn a_balloon_that_does_not_follow_is_reported_and_not_rewarded() {
    let mut world = World::new(256);
    let lazy = world.up(definition("lazy", 256, ""));
    world.say(lazy, FromVmm::Want(mib(150)));
    let needy = world.up(definition("needy", 256, ""));
    for _ in 0..30 {
        world.say(needy, FromVmm::Want(mib(64)));
        world.report(lazy, Pages(0));
        world.report(needy, Pages(0));
        world.pass(SECOND);
    }
    let vm = world.vm("lazy");
    assert_eq!(vm.balloon, BalloonHealth::Stuck, "{vm:?}");
    let before = vm.grant;
    world.say(lazy, FromVmm::Want(mib(64)));
    for _ in 0..10 {
        world.pass(SECOND);
    }
    assert_eq!(world.vm("lazy").grant, before);
    let events = match world.answer(Request::Events(0)) {
        Ok(Answer::Events(events)) => events,
        other => panic!("{other:?}"),
    };
    assert!(events.iter().any(|e| e.vm == Some(name("lazy")) && e.text.contains("stuck")));
}

#[test]
fn a_vmm_that_keeps_what_its_balloon_freed_is_called_stuck() {
    let mut world = World::new(256);
    let hoarder = world.up(definition("hoarder", 256, ""));
    world.say(hoarder, FromVmm::Want(mib(150)));
    world.say(hoarder, FromVmm::Want(Pages(0)));
    let needy = world.up(definition("needy", 256, ""));
    for _ in 0..30 {
        world.say(needy, FromVmm::Want(mib(64)));
        let claimed = world.balloons.get(&hoarder).copied().unwrap_or_default();
        world.report(hoarder, claimed);
        world.pass(SECOND);
    }
    let vm = world.vm("hoarder");
    assert!(vm.balloon_target > Bytes::ZERO && vm.ballooned == vm.balloon_target);
    assert_eq!(vm.balloon, BalloonHealth::Stuck, "{vm:?}");
}

#[test]
fn changes_are_checked_like_definitions_and_admitted_like_starts() {
    let mut world = World::new(640);
    world.up(definition("a", 256, ""));
    world.up(definition("b", 512, ""));
    let change =
        |reservation: u64| VmChange { reservation: Some(Bytes::mib(reservation)), ..VmChange::default() };
    assert!(world.answer(Request::Change(name("a"), change(120))).is_ok());
    assert_eq!(world.vm("a").reservation, Bytes::mib(120));
    let over = world.answer(Request::Change(name("a"), change(300))).unwrap_err();
    assert_eq!(over.kind, FailureKind::Invalid);
    let full = world.answer(Request::Change(name("b"), change(512))).unwrap_err();
    assert_eq!(full.kind, FailureKind::NoMemory);
    let limit = VmChange { limit: Some(OrNone::To(Bytes::mib(128))), ..VmChange::default() };
    world.answer(Request::Change(name("b"), limit)).unwrap();
    let b = world.core.vm(&name("b")).unwrap().run.unwrap();
    for _ in 0..4 {
        world.pass(Duration::from_secs(1));
    }
    assert!(world.balloons[&b] >= mib(300), "as large as balloons get");
    world.say(b, FromVmm::Want(mib(512)));
    assert!(world.granted[&b] <= mib(128));
}

#[test]
fn a_limit_holds_to_the_page_however_small_the_last_step_to_it() {
    let mut world = World::new(640);
    let run = world.up(definition("a", 256, ""));
    world.say(run, FromVmm::Want(mib(256)));
    assert_eq!(world.granted[&run], mib(256));
    // Within the largest balloon; each lies a little below the one before.
    for limit in [mib(128), mib(128) - Pages(128), mib(128) - Pages(129)] {
        let change = VmChange { limit: Some(OrNone::To(limit.bytes())), ..VmChange::default() };
        world.answer(Request::Change(name("a"), change)).unwrap();
        for _ in 0..4 {
            // Within such a time a balloon grows to within a step of the first limit.
            world.pass(SECOND - Duration::from_millis(4));
            follow(&mut world, run);
        }
        assert_eq!(world.granted[&run], limit);
    }
}

/// Without drivers, store and swap space nothing is ever given back.
#[test]
fn vms_that_cannot_page_are_fed_in_order_of_shares_and_never_below_the_low_threshold() {
    let mut world = World::new(640);
    world.core.settings.rules.largest_store = 0;
    let low = world.core.settings.thresholds.low;
    let runs: Vec<RunId> = (0..11).map(|i| world.up(definition(&format!("vm{i}"), 64, ""))).collect();
    let (first, last) = (runs[0], runs[10]);
    let wait = |world: &mut World, runs: &[RunId], seconds: u64| {
        for _ in 0..seconds {
            for run in runs {
                world.say(*run, FromVmm::Want(mib(64) - world.granted[run]));
            }
            world.pass(SECOND);
        }
    };
    wait(&mut world, &runs, 60);
    assert!(world.core.ledger.free() >= low, "{}", world.host().free);
    assert_eq!((world.granted[&first], world.vm("vm10").wanted > Bytes::ZERO), (mib(64), true));
    let above: Vec<RunId> = runs
        .iter()
        .copied()
        .filter(|id| world.core.charged(*id) > world.core.run(*id).unwrap().decided.entitlement)
        .collect();
    let before: Vec<Pages> = above.iter().map(|run| world.granted[run]).collect();
    // What comes back goes to the VM with the least memory for its shares, although it needs most.
    let change = VmChange { shares: Some(Shares::Custom(1_000_000)), ..VmChange::default() };
    world.answer(Request::Change(name("vm10"), change)).unwrap();
    wait(&mut world, &runs, 2);
    world.input(Input::Exited(first, "signal 9".into()));
    wait(&mut world, &runs[1..], 4);
    assert_eq!(world.granted[&last], mib(64));
    assert!(world.core.ledger.free() >= low, "{}", world.host().free);
    for (run, before) in above.iter().zip(before).filter(|(run, _)| **run != first) {
        assert_eq!(world.granted[run], before, "it has more than it is entitled to, and others wait");
    }
}

#[test]
fn a_vm_that_has_waited_is_served_before_one_that_asks_now() {
    let mut world = World::new(300);
    let [a, b, c] = ["a", "b", "c"].map(|vm| world.up(definition(vm, 256, "")));
    world.say(a, FromVmm::Want(mib(256)));
    world.say(b, FromVmm::Want(mib(256)));
    (0..5).for_each(|_| world.pass(SECOND));
    let (has, free) = (world.granted[&b], world.core.ledger.free());
    assert!(world.core.run(b).unwrap().wanted > Pages(0));
    // Many return memory at once: it is given out when all of that has been taken.
    world.busy = true;
    (0..10).for_each(|_| world.say(a, FromVmm::Return(mib(2))));
    assert_eq!((world.granted[&b], world.core.ledger.free()), (has, free + mib(20)));
    world.say(c, FromVmm::Want(Pages(1)));
    assert!(world.core.has_to_serve());
    world.input(Input::Serve);
    assert!(world.granted[&b] > has, "{:?} of {has:?}", world.granted[&b]);
    assert!(!world.core.has_to_serve());
}
