//! Whole processes with model guests that share pages, and a daemon that has the real index and
//! frames.

mod daemon;
mod hub;

use hub::{Hub, WATCHED, member};
use plimsoll_protocol::sharing::SharingKind;
use plimsoll_units::Pages;

/// What guests fill with the same pattern: 8 MiB.
const BYTES: &str = "8388608";
const COMMON: Pages = Pages(2048);

/// Guests that hold the same pattern, all of it shared.
fn sharing(vms: usize) -> Hub {
    let mut hub = Hub::start(vms);
    for vm in 0..vms {
        assert!(hub.command(vm, &format!("touch {BYTES} 1")).starts_with("ok"));
        hub.share(vm);
    }
    (0..vms).for_each(|vm| hub.until_shared(vm, COMMON));
    hub
}

#[test]
fn equal_pages_are_shared_and_written_pages_are_ones_own_again() {
    let mut hub = sharing(2);
    assert!(hub.has_frames(COMMON), "{:?}", hub.domain.stats());
    for vm in [0, 1] {
        let facts = hub.facts(vm);
        assert!(facts.held <= WATCHED, "{facts:?}");
        assert!(facts.merged + WATCHED.0 >= COMMON.0 && facts.scanned >= COMMON.0, "{facts:?}");
        assert!(facts.scan_cpu.as_nanos() > 0 && facts.mismatched == 0, "{facts:?}");
    }
    // What is saved comes back to the host, all but the slack for the next fault.
    hub.until("the grant to come back", |hub| {
        [0, 1].iter().all(|&vm| hub.vm(vm).granted <= Pages::CHUNK + WATCHED)
    });
    hub.verify();
    assert!(hub.command(0, "turn 1 2").starts_with("ok"));
    hub.until_shared(0, Pages::ZERO);
    let facts = hub.facts(0);
    assert!(facts.broken + WATCHED.0 >= COMMON.0 && facts.held >= COMMON, "{facts:?}");
    assert!(hub.has_frames(COMMON), "the other one has them: {:?}", hub.domain.stats());
    hub.verify();
    // What becomes equal again is shared again, also what was written to before.
    assert!(hub.command(1, "turn 1 2").starts_with("ok"));
    [0, 1].iter().for_each(|&vm| hub.until_shared(vm, COMMON));
    hub.verify();
    [0, 1].iter().for_each(|&vm| assert!(hub.command(vm, "free").starts_with("ok")));
    hub.until("the frames to be free", |hub| hub.domain.stats().frames == Pages::ZERO);
    assert_eq!(hub.domain.excess().ok(), Some(Pages::ZERO));
}

#[test]
fn zeros_cost_nothing_without_a_domain() {
    let mut hub = Hub::start(1);
    assert!(hub.command(0, &format!("touch {BYTES} 1")).starts_with("ok"));
    assert!(hub.command(0, "clear 1").starts_with("ok"));
    assert!(hub.facts(0).held >= COMMON);
    hub.unshare(0, SharingKind::Zero);
    hub.until("zeros", |hub| hub.facts(0).zero + WATCHED >= COMMON);
    let facts = hub.facts(0);
    assert!(facts.held <= WATCHED && facts.zeroed + WATCHED.0 >= COMMON.0, "{facts:?}");
    hub.verify();
    assert!(hub.command(0, "rewrite 1").starts_with("ok"));
    hub.unshare(0, SharingKind::Off);
    hub.verify();
    assert!(hub.facts(0).held >= COMMON);
}

#[test]
fn a_page_that_changes_between_look_up_and_answer_is_not_shared() {
    let mut hub = sharing(2);
    assert!(hub.command(1, "free 1").starts_with("ok"));
    hub.until_shared(1, Pages::ZERO);
    // All of what its pages are said to be is out of date when it hears it.
    hub.before_found = Some((1, "turn 1 2".to_owned()));
    assert!(hub.command(1, &format!("touch {BYTES} 1")).starts_with("ok"));
    hub.until("a look-up", |hub| hub.before_found.is_none());
    hub.verify();
    hub.until_shared(1, Pages::ZERO);
    assert_eq!(hub.domain.member(member(1)).map(|stats| stats.false_matches), Some(0), "pages may change");
    assert!(hub.command(1, "turn 2 1").starts_with("ok"));
    hub.until_shared(1, COMMON);
    hub.verify();
}

#[test]
fn nothing_is_lost_while_guests_write_what_is_being_shared() {
    let mut hub = sharing(3);
    for seed in 2..4 {
        for vm in 0..3 {
            // Each is a step ahead of the next: they become equal, and different, again and again.
            let (from, to) = (seed - 1 - u64::from(vm == 2), seed - u64::from(vm == 2));
            if from > 0 {
                assert!(hub.command(vm, &format!("turn {from} {to}")).starts_with("ok"));
            }
        }
        hub.verify();
    }
    assert!(hub.command(2, "turn 2 3").starts_with("ok"));
    (0..3).for_each(|vm| hub.until_shared(vm, COMMON));
    assert!(hub.has_frames(COMMON), "{:?}", hub.domain.stats());
    hub.verify();
}

#[test]
fn a_daemon_that_dies_in_the_middle_is_followed_by_one_that_knows_all() {
    for answers in [0, 3, 10, 25] {
        let mut hub = Hub::start(2);
        [0, 1].iter().for_each(|&vm| assert!(hub.command(vm, &format!("touch {BYTES} 1")).starts_with("ok")));
        hub.answers_left = answers;
        [0, 1].iter().for_each(|&vm| hub.share(vm));
        while !hub.vms.iter_mut().flatten().all(|vm| vm.is_away()) {
            hub.step();
        }
        hub.verify();
        hub.take_over();
        [0, 1].iter().for_each(|&vm| hub.until_shared(vm, COMMON));
        assert!(hub.has_frames(COMMON), "after {answers} answers: {:?}", hub.domain.stats());
        hub.verify();
    }
}

#[test]
fn sharing_is_switched_off_and_on_while_guests_run() {
    let mut hub = sharing(2);
    hub.unshare(0, SharingKind::Off);
    hub.until_shared(0, Pages::ZERO);
    assert!(hub.facts(0).held >= COMMON);
    assert!(hub.facts(1).shared + WATCHED >= COMMON);
    hub.verify();
    hub.share(0);
    hub.until_shared(0, COMMON);
    // Changing one's mind on the way does no harm.
    hub.unshare(0, SharingKind::Zero);
    hub.share(0);
    hub.unshare(1, SharingKind::Off);
    hub.until_shared(1, Pages::ZERO);
    hub.share(1);
    [0, 1].iter().for_each(|&vm| hub.until_shared(vm, COMMON));
    hub.verify();
}

#[test]
fn a_vm_that_dies_half_way_takes_nothing_with_it() {
    for shared in [1, 300, COMMON.0 - WATCHED.0] {
        let mut hub = Hub::start(2);
        for vm in [0, 1] {
            assert!(hub.command(vm, &format!("touch {BYTES} 1")).starts_with("ok"));
            hub.share(vm);
        }
        hub.until("some shared pages", |hub| hub.domain.stats().frames >= Pages(shared));
        hub.kill(1);
        hub.verify();
        let references = hub.domain.member(member(0)).map(|stats| stats.references);
        hub.until("what it had to be free", |hub| {
            hub.domain.tidy();
            Some(hub.domain.stats().frames) == references
        });
        assert!(hub.command(0, "turn 1 2").starts_with("ok"));
        hub.until_shared(0, Pages::ZERO);
        hub.until("all frames to be free", |hub| hub.domain.stats().frames == Pages::ZERO);
        hub.verify();
    }
}
