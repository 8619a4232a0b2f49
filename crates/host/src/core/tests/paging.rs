use super::*;

/// A VM of 512 MiB with swap space that holds most of a host of 640 MiB, and another that is about
/// to need some.
fn crowded() -> (World, RunId, RunId) {
    let mut world = World::new(640);
    let rich = world.up(definition("rich", 512, ""));
    let needy = world.up(definition("needy", 512, ""));
    world.core.run_mut(rich).unwrap().swap = mib(512);
    world.core.run_mut(needy).unwrap().swap = mib(512);
    for _ in 0..400 {
        let lacks = mib(512) - world.granted[&rich];
        world.say(rich, FromVmm::Want(lacks.min(mib(4))));
    }
    world.say(rich, FromVmm::Want(Pages(0)));
    (world, rich, needy)
}

/// Neither has a balloon driver. What is taken from the one is there for the other before a tenth
/// of a second has passed.
#[test]
fn who_is_entitled_to_memory_has_it_within_100_ms_although_another_must_give_it_first() {
    let (mut world, rich, needy) = crowded();
    let before = world.granted[&needy];
    assert!(world.granted[&rich] >= mib(400), "{}", world.granted[&rich].bytes());
    world.pass(SECOND);
    let begin = world.clock.now;
    // Sixteen times 8 MiB, as fast as it is served.
    let mut left = 16;
    world.say(needy, FromVmm::Want(mib(8)));
    while world.clock.now < begin + Duration::from_millis(100) {
        world.obey_level(rich);
        if world.core.run(needy).unwrap().wanted == Pages(0) && left > 1 {
            left -= 1;
            world.say(needy, FromVmm::Want(mib(8)));
        }
        world.pass(Duration::from_millis(1));
    }
    let got = world.granted[&needy] - before;
    assert!(got >= mib(64), "{}", got.bytes());
    assert!(world.granted[&rich] < mib(500));
}

#[test]
fn a_vm_at_its_limit_serves_itself_from_the_start_and_one_that_waits_in_vain_after_a_period() {
    let mut world = World::new(640);
    let limited = world.up(definition("limited", 512, "limit = '64MiB'"));
    world.pass(SECOND);
    assert_eq!(world.levels[&limited], (mib(64), false));
    let (mut world, rich, needy) = crowded();
    world.core.run_mut(rich).unwrap().facts.paging_stuck = true;
    for _ in 0..30 {
        world.say(needy, FromVmm::Want(mib(64)));
        world.pass(Duration::from_millis(100));
    }
    let needy = world.core.run(needy).unwrap();
    assert!(needy.waited && needy.paging_cause == Some(plimsoll_policy::PagingCause::Waited), "{needy:?}");
}

/// Its balloon follows, but takes pages that hold nothing.
#[test]
fn where_a_balloon_brings_nothing_for_ten_seconds_its_vm_is_paged_in_state_soft_too() {
    let (mut world, rich, _) = crowded();
    let host = world.host();
    world.input(usable_input(host.granted + host.overhead + Bytes::mib(18)));
    let paged: Vec<bool> = (0..14)
        .map(|_| {
            let balloon = world.balloons.get(&rich).copied().unwrap_or_default();
            world.report(rich, balloon);
            world.pass(SECOND);
            assert_eq!(world.host().state, plimsoll_policy::State::Soft);
            let (explained, level) = (world.explain_host().decision, world.levels.get(&rich));
            let paged = level.is_some_and(|(level, _)| *level < world.granted[&rich]);
            assert_eq!(explained.strained, paged, "{explained:?}");
            paged
        })
        .collect();
    let first = paged.iter().position(|paged| *paged).unwrap();
    assert!((9..=11).contains(&first) && paged[first..].iter().all(|paged| *paged), "{paged:?}");
}

#[test]
fn a_vm_whose_balloon_is_slow_is_paged_in_state_soft_once_that_is_seen() {
    let (mut world, rich, _) = crowded();
    let host = world.host();
    world.input(usable_input(host.granted + host.overhead + Bytes::mib(18)));
    let paged: Vec<bool> = (1..=14)
        .map(|second| {
            let told = world.balloons.get(&rich).copied().unwrap_or_default();
            world.report(rich, told.min(mib(second)));
            world.pass(SECOND);
            assert_eq!(world.host().state, plimsoll_policy::State::Soft);
            let level = world.levels.get(&rich);
            level.is_some_and(|(level, _)| *level < world.granted[&rich])
        })
        .collect();
    // At first the other VM is owed memory.
    assert!(!paged[1] && !paged[2] && paged[4..].iter().all(|paged| *paged), "{paged:?}");
}

#[test]
fn who_lowers_a_limit_below_what_is_held_is_told_what_can_be_taken() {
    let lowered = |swap| {
        let (mut world, rich, _) = crowded();
        world.core.run_mut(rich).unwrap().swap = swap;
        let held = world.granted[&rich].bytes();
        let change = VmChange { limit: Some(OrNone::To(Bytes::mib(128))), ..VmChange::default() };
        let Ok(Answer::Vm(vm)) = world.answer(Request::Change(name("rich"), change)) else { panic!() };
        let above = held.saturating_sub(Bytes::mib(128));
        (vm.note.unwrap_or_default(), format!("it holds {held}, {above} more than its limit"), above, world)
    };
    let (note, text, ..) = lowered(mib(512));
    assert_eq!(note, text, "swap space has room for it");
    let (note, text, above, mut world) = lowered(Pages::ZERO);
    let stays = format!("{text}, and nothing can take ");
    assert!(
        note.starts_with(&stays) && !note.contains(&format!("{stays}0B")) && above > Bytes::ZERO,
        "{note}"
    );
    assert!(world.core.events.after(0).iter().any(|event| event.text.contains(&stays)));
    // Once it is below, there is nothing to tell.
    let change = VmChange { limit: Some(OrNone::None), ..VmChange::default() };
    let Ok(Answer::Vm(vm)) = world.answer(Request::Change(name("rich"), change)) else { panic!() };
    assert_eq!(vm.note, None);
}

#[test]
fn a_vm_without_a_driver_pages_down_to_its_limit_however_small_the_step() {
    let (mut world, rich, _) = crowded();
    for limit in [mib(128), mib(128) - Pages(128), mib(128) - Pages(129)] {
        let change = VmChange { limit: Some(OrNone::To(limit.bytes())), ..VmChange::default() };
        world.answer(Request::Change(name("rich"), change)).unwrap();
        for _ in 0..4 {
            world.pass(SECOND);
            world.obey_level(rich);
        }
        assert_eq!(world.granted[&rich], limit);
    }
}

#[test]
fn a_reservation_is_not_lowered_below_what_the_swap_space_was_set_aside_for() {
    let mut world = World::new(640);
    let run = world.up(definition("a", 256, "reservation = '128MiB'"));
    world.core.run_mut(run).unwrap().swap = mib(128);
    let change = |n| VmChange { reservation: Some(Bytes::mib(n)), ..VmChange::default() };
    let refused = world.answer(Request::Change(name("a"), change(64))).unwrap_err();
    assert!(
        refused.text.contains("reservation 128MiB") && refused.kind == FailureKind::Conflict,
        "{refused:?}"
    );
    assert!(world.answer(Request::Change(name("a"), change(160))).is_ok());
    assert!(world.answer(Request::Change(name("a"), change(128))).is_ok());
}

#[test]
fn in_state_low_who_is_above_his_target_stands_still_until_he_is_there() {
    let (mut world, rich, needy) = crowded();
    world.pass(SECOND);
    assert!(!world.levels[&rich].1, "the host has memory");
    // Other programs take all that was free.
    let usable = world.host().granted + world.host().overhead;
    world.input(usable_input(Bytes(usable.0 / 2)));
    world.pass(SECOND);
    assert_eq!(world.host().state, plimsoll_policy::State::Low);
    let (level, block) = world.levels[&rich];
    assert!(block && level < world.granted[&rich], "{level:?} {:?}", world.granted[&rich]);
    assert!(!world.levels[&needy].1, "a VM within its entitlement runs on");
    let facts = Facts { blocked: true, ..world.core.run(rich).unwrap().facts };
    world.say(rich, FromVmm::Report(facts));
    assert!(world.vm("rich").paging.blocked && world.host().blocked == 1);
    // It pages out what it has to, and others take no more.
    for _ in 0..100 {
        world.obey_level(rich);
        world.pass(SECOND);
    }
    let host = world.host();
    assert!(!world.levels[&rich].1, "{:?} {host:?}", world.levels[&rich]);
    assert!(host.free > Bytes::ZERO);
}

#[test]
fn who_cannot_page_is_never_made_to_stand_still() {
    let (mut world, rich, _) = crowded();
    world.core.run_mut(rich).unwrap().facts.paging_stuck = true;
    let usable = world.host().granted + world.host().overhead;
    world.input(usable_input(Bytes(usable.0 / 2)));
    for _ in 0..10 {
        world.pass(SECOND);
        assert!(!world.levels[&rich].1, "it could never come to its target");
    }
}

#[test]
fn what_is_reserved_and_unused_is_lent_and_comes_back_when_it_is_wanted() {
    let mut world = World::new(1024);
    let lender = world.up(definition("lender", 512, "reservation = '512MiB'"));
    world.say(lender, FromVmm::Return(world.granted[&lender] - mib(8)));
    let borrower = world.up(definition("borrower", 1000, ""));
    let want = |world: &mut World, run, most| {
        let lacks = mib(most).saturating_sub(world.granted[&run]);
        world.say(run, FromVmm::Want(lacks.min(mib(16))));
    };
    for swap in [0, 1000] {
        world.core.run_mut(borrower).unwrap().swap = mib(swap);
        for _ in 0..100 {
            want(&mut world, borrower, 1000);
            world.pass(Duration::from_millis(100));
        }
        let lent = world.granted[&borrower] > mib(850);
        assert_eq!(lent, swap > 0, "{}", world.granted[&borrower].bytes());
        assert_eq!(world.host().state, plimsoll_policy::State::High);
    }
    let begin = world.clock.now;
    while world.granted[&lender] < mib(512) {
        want(&mut world, lender, 512);
        world.pass(Duration::from_millis(10));
        world.obey_level(borrower);
    }
    // 32 times 16 MiB.
    assert!(world.clock.now - begin < SECOND, "{:?}", world.clock.now - begin);
}
