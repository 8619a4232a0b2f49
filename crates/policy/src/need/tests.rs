use super::*;

const SECOND: Duration = Duration::from_secs(1);
const CHUNK: u64 = Pages::CHUNK.0;

fn signs(estimate: u64, waits: u64, given: u64) -> Signs {
    let [estimate, waits, given] = [estimate, waits, given].map(Pages);
    Signs { estimate, most: Pages(65_536), waits, given, ..Signs::default() }
}

/// Observes `need` of a VM that executes all the time.
fn look(need: &mut Need, elapsed: Duration, signs: &Signs) {
    need.observe(elapsed, &Signs { executed: elapsed, ..*signs });
}

#[test]
fn an_idle_vm_that_waits_for_a_page_needs_a_chunk() {
    let mut need = Need::default();
    for _ in 0..100 {
        look(&mut need, SECOND, &signs(11_000, 1, 0));
        assert_eq!(need.missing(), Pages(CHUNK));
        look(&mut need, SECOND * 6, &signs(11_000, 0, 1));
    }
    assert!(need.active(Pages(11_000)) <= Pages(11_000 + CHUNK));
}

#[test]
fn a_vm_that_stands_still_needs_more_and_more() {
    let mut need = Need::default();
    for second in 0..20 {
        look(&mut need, SECOND, &Signs { stall: [0.5; 2], ..signs(11_000, (second + 1) % 2, 1) });
        let least = CHUNK << (second / 2);
        assert!(need.missing().0 >= least.min(65_536 - 11_000), "{need:?} after {second} s");
    }
    assert_eq!(need.active(Pages(11_000)), Pages(65_536));
}

#[test]
fn a_vm_uses_what_it_holds_as_far_as_it_stands_still() {
    for (stall, uses) in [(0.0, 11_000), (0.1, 16_000), (0.25, 23_500), (0.5, 36_000), (1.0, 36_000)] {
        let mut need = Need::default();
        look(&mut need, SECOND, &Signs { held: Pages(36_000), stall: [stall, 0.0], ..signs(11_000, 1, 0) });
        assert_eq!(need.active(Pages(11_000)), Pages(uses + CHUNK), "{stall}");
    }
}

#[test]
fn a_vm_that_is_stalled_uses_what_its_guest_cannot_give() {
    for (stall, committed, uses) in [
        (0.0, Some(30_000), 11_000),
        (0.05, Some(30_000), 20_500),
        (0.1, Some(30_000), 30_000),
        (0.2, Some(60_000), 36_000),
        (0.2, Some(5_000), 21_000),
        (0.2, None, 21_000),
    ] {
        let mut need = Need::default();
        let committed = committed.map(Pages);
        let stalled = Signs { committed, held: Pages(36_000), stall: [stall, 0.0], ..signs(11_000, 1, 0) };
        look(&mut need, SECOND, &stalled);
        assert_eq!(need.active(Pages(11_000)), Pages(uses + CHUNK), "{stall}, {committed:?}");
    }
}

#[test]
fn a_vm_that_takes_all_that_it_is_given_misses_twice_as_much_each_time() {
    let mut need = Need::default();
    look(&mut need, SECOND, &signs(11_000, CHUNK, 0));
    let mut missing = Vec::new();
    for _ in 0..8 {
        let given = need.missing().0;
        look(&mut need, SECOND, &signs(11_000, 0, given));
        look(&mut need, SECOND, &signs(11_000, 1, 0));
        missing.push(need.missing().0 / CHUNK);
    }
    assert_eq!(missing, [1, 2, 4, 8, 16, 32, 64, 106]);
    assert_eq!(need.active(Pages(11_000)), Pages(65_536));
    // A VM that serves itself from its own pages needs the same.
    let mut need = Need::default();
    for _ in 0..3 {
        look(&mut need, SECOND, &Signs { replaced: Pages(600), ..signs(11_000, 0, 0) });
    }
    assert_eq!(need.missing(), Pages(1200));
}

#[test]
fn a_vm_that_waits_for_its_own_balloon_lacks_nothing_unless_it_is_stalled() {
    let mut need = Need::default();
    let inflates =
        |stall| Signs { held: Pages(30_000), stall: [stall; 2], inflates: true, ..signs(11_000, 1, 512) };
    for _ in 0..60 {
        look(&mut need, SECOND, &inflates(Need::INFLATING / 2.0));
    }
    assert_eq!((need.missing(), need.active(Pages(11_000))), (Pages::ZERO, Pages(11_000)));
    look(&mut need, SECOND, &inflates(Need::INFLATING));
    assert!(need.missing() > Pages::ZERO);
}

#[test]
fn need_fades_at_the_pace_of_the_samples() {
    let mut need = Need::new(SECOND * 4);
    look(&mut need, SECOND, &signs(11_000, 8192, 0));
    let high = need.active(Pages::ZERO).0;
    let holds = Signs { held: Pages(30_000), ..signs(11_000, 0, 0) };
    look(&mut need, Need::GRACE * 2, &Signs { starved: true, ..holds });
    // A minute with 2 s of execution counts as 2 s.
    need.observe(SECOND * 60, &Signs { executed: SECOND * 2, ..holds });
    look(&mut need, SECOND * 2, &holds);
    assert_eq!(need.active(Pages::ZERO).0, (high - 11_000) / 2 + 11_000);
}

#[test]
fn what_a_guest_calls_free_it_does_not_use() {
    let mut need = Need::default();
    let said = |used, waits| Signs { used: Some(Pages(used)), ..signs(40_000, waits, 0) };
    look(&mut need, SECOND, &said(50_000, 0));
    assert_eq!(need.active(Pages(40_000)), Pages(40_000));
    look(&mut need, SECOND, &said(12_000, 0));
    assert_eq!(need.active(Pages(40_000)), Pages(12_000));
    // The account of a VM that waits may be older than the wait.
    look(&mut need, SECOND, &said(12_000, 8192));
    assert_eq!(need.active(Pages(40_000)), Pages(20_192));
    look(&mut need, Need::GRACE, &said(12_000, 0));
    assert_eq!(need.active(Pages(40_000)), Pages(20_192));
    look(&mut need, SECOND, &said(12_000, 0));
    assert_eq!(need.active(Pages(40_000)), Pages(12_000));
    look(&mut need, SECOND, &signs(40_000, 0, 0));
    assert_eq!(need.active(Pages(40_000)), Pages(40_000), "it says nothing any more");
}

#[test]
fn a_vm_that_was_stalled_lacks_memory_even_if_it_does_not_wait_now() {
    for (now, lacks) in [(Need::STALLED, CHUNK), (Need::STALLED / 2.0, 0)] {
        let mut need = Need::default();
        look(&mut need, SECOND, &Signs { stall: [0.0, now], ..signs(11_000, 0, 0) });
        assert_eq!(need.missing(), Pages(lacks));
    }
}

#[test]
fn waits_far_apart_are_lacks_of_their_own() {
    let mut need = Need::default();
    for _ in 0..7 {
        look(&mut need, Need::GRACE * 2, &signs(11_000, 0, 5000));
        look(&mut need, SECOND, &signs(11_000, 1, 5000));
        assert_eq!(need.missing(), Pages(CHUNK));
    }
}

#[test]
fn need_does_not_fall_while_the_vm_lacks_memory_and_fades_when_it_does_not() {
    let mut need = Need::default();
    look(&mut need, SECOND, &signs(40_000, 5000, 0));
    for _ in 0..120 {
        look(&mut need, SECOND, &signs(13_000, 1, 1));
    }
    assert_eq!(need.active(Pages(13_000)), Pages(45_000), "what it was seen to need at first");
    let holds = |held| Signs { held: Pages(held), ..signs(13_000, 0, 0) };
    for _ in 0..120 {
        look(&mut need, SECOND, &Signs { starved: true, ..holds(50_000) });
    }
    assert_eq!(need.active(Pages(13_000)), Pages(45_000));
    look(&mut need, Estimator::PERIOD, &holds(50_000));
    assert_eq!(need.active(Pages(13_000)), Pages(29_000), "half of the way");
    look(&mut need, Need::GRACE, &holds(13_000));
    assert_eq!(need.active(Pages(13_000)), Pages(21_000), "it has given the memory back");
}

#[test]
fn a_vm_that_lacks_memory_again_and_again_keeps_its_need_longer() {
    let mut need = Need::default();
    let mut falls = Vec::new();
    for _ in 0..8 {
        look(&mut need, SECOND, &signs(11_000, 8192, 0));
        let high = need.active(Pages::ZERO);
        for _ in 0..60 {
            look(&mut need, SECOND, &Signs { held: Pages(20_000), ..signs(11_000, 0, 0) });
        }
        falls.push(high.0 - need.active(Pages::ZERO).0);
    }
    assert_eq!(need.fading, Estimator::PERIOD * Need::SLOWEST_PERIODS);
    assert!(falls.windows(2).all(|pair| pair[1] <= pair[0]), "{falls:?}");
    for _ in 0..3600 {
        look(&mut need, SECOND, &signs(11_000, 0, 0));
    }
    assert_eq!((need.active(Pages::ZERO), need.fading), (Pages(11_000), Estimator::PERIOD), "it is done");
}
