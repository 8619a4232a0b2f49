use super::*;

const STEP: Duration = Duration::from_millis(20);

/// Times are compared with what has passed at least: a thread may sleep longer.
#[test]
fn the_clock_runs_while_faults_are_stalled() {
    let mut clock = StallClock::default();
    clock.set_tasks(2);
    let now = |clock: &StallClock| clock.at(Instant::now());
    std::thread::sleep(STEP);
    assert_eq!(now(&clock), Stalled::default());
    clock.observe(1);
    std::thread::sleep(STEP);
    let one = now(&clock);
    assert!(one.some >= STEP && one.full == Duration::ZERO, "{one:?}");
    clock.observe(2);
    std::thread::sleep(STEP);
    let two = now(&clock);
    assert!(two.some >= 2 * STEP && two.full >= STEP && two.full <= two.some - STEP, "{two:?}");
    clock.observe(0);
    let ended = now(&clock);
    assert!(ended.some >= two.some);
    std::thread::sleep(STEP);
    assert_eq!(now(&clock), ended, "nothing is stalled");
}

#[test]
fn a_vm_that_is_held_is_stalled_in_full() {
    let mut clock = StallClock::default();
    clock.set_tasks(8);
    clock.hold(true);
    clock.observe(1);
    std::thread::sleep(STEP);
    clock.hold(false);
    let held = clock.at(Instant::now());
    assert!(held.full >= STEP, "{held:?}");
    std::thread::sleep(STEP);
    let after = clock.at(Instant::now());
    assert!(after.full == held.full && after.some >= held.some + STEP, "{after:?}");
}
