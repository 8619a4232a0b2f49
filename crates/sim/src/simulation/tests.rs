use plimsoll_policy::{State, Thresholds};
use proptest::prelude::*;

use super::*;
use crate::course::STATES;
use crate::demand::{Curve, Demand, Point, Want};
use crate::scenario::{GuestSpec, HostSpec, ThresholdRule, VmSpec};

pub(super) fn mib(n: u64) -> Pages {
    Pages::floor(Bytes::mib(n))
}

pub(super) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Size, reservation, shares, start, life, zeroes at boot, balloon driver after, two levels of
/// active memory, content beyond them, and flags: reports free memory, asks, shares.
type VmFacts =
    ((u64, u64, u64), (u64, Option<u64>), (bool, Option<u64>), (u64, u64, u64), (bool, bool, bool));

fn vm(i: usize, facts: VmFacts) -> VmSpec {
    let ((size, reservation, shares), (start, life), (zeroes, driver), (first, second, more), flags) = facts;
    let (reports_free, asks, shares_pages) = flags;
    let want = |active| Want { active: Bytes::mib(active), content: Some(Bytes::mib(active + more)) };
    let point = |at, active| Point { at: seconds(at), ramp: seconds(5), want: want(active) };
    VmSpec {
        name: format!("vm{i}"),
        group: format!("vm{i}"),
        size: mib(size),
        reservation: mib(reservation.min(size)),
        limit: mib(size),
        shares,
        tax: None,
        pool: None,
        overhead: mib(8),
        vcpus: 1,
        start: seconds(start),
        life: life.map(seconds),
        guest: GuestSpec {
            zeroes: if zeroes { mib(size) } else { Pages::ZERO },
            zero_speed: Bytes::mib(50),
            touch_speed: Bytes::mib(100),
            fill_speed: Bytes::mib(20),
            balloon_after: driver.map(seconds),
            reports_free,
            asks,
            demand: Demand {
                curve: Curve::Points(vec![point(0, first), point(40, second)]),
                jitter: 0.2,
                spread: Duration::ZERO,
            },
            common: if shares_pages { 0.4 } else { 0.0 },
            domain: shares_pages.then(|| "all".to_owned()),
        },
    }
}

pub(super) fn scenario(memory: u64, swap: u64, seed: u64, vms: Vec<VmFacts>) -> Scenario {
    Scenario {
        title: String::new(),
        duration: seconds(90),
        step: seconds(1),
        seed,
        host: HostSpec {
            memory: Bytes::mib(memory),
            tax: plimsoll_policy::Tax::DEFAULT,
            thresholds: ThresholdRule::Sliding,
            swap: Bytes::mib(swap),
            swap_speed: Bytes::mib(20),
            balloon_speed: Bytes::mib(50),
            scan_speed: Bytes::mib(20),
            sample_pages: 50,
            sample_period: seconds(10),
        },
        pools: plimsoll_policy::PoolTree::default(),
        vms: vms.into_iter().enumerate().map(|(i, facts)| vm(i, facts)).collect(),
        changes: Vec::new(),
    }
}

fn any_vm() -> impl Strategy<Value = VmFacts> {
    (
        (32..300u64, 0..100u64, 1..5000u64),
        (0..40u64, prop::option::of(10..60u64)),
        (any::<bool>(), prop::option::of(0..40u64)),
        (0..250u64, 0..250u64, 0..100u64),
        (any::<bool>(), any::<bool>(), any::<bool>()),
    )
}

fn any_scenario() -> impl Strategy<Value = Scenario> {
    let swap = prop::sample::select(vec![0u64, 100, 4000]);
    (200..900u64, swap, any::<u64>(), prop::collection::vec(any_vm(), 1..6))
        .prop_map(|(memory, swap, seed, vms)| scenario(memory, swap, seed, vms))
}

/// What must hold after every step.
fn check(simulation: &Simulation) -> Result<(), TestCaseError> {
    let frame = simulation.frame();
    let sums = frame.sums();
    let thresholds = Thresholds::sliding(simulation.scenario.host.memory);
    prop_assert_eq!(
        frame.free + frame.overhead + frame.frames + sums.held,
        simulation.memory,
        "machine memory is conserved"
    );
    prop_assert!(sums.swapped <= Pages::floor(simulation.scenario.host.swap), "swap space is not exceeded");
    for (i, run) in simulation.runs() {
        let spec = &simulation.scenario.vms[i];
        prop_assert_eq!(run.guest.memory.sum(), spec.size, "guest memory is conserved");
        // Admission gives out minFree too; where it is reserved, entitlements shrink in proportion.
        let promised: Pages = simulation.runs().map(|(i, _)| simulation.scenario.vms[i].reservation).sum();
        let fits = frame.overhead + promised + thresholds.clear <= simulation.memory;
        prop_assert!(
            run.entitlement >= spec.reservation || !fits,
            "{} is entitled to its reservation",
            spec.name
        );
        prop_assert!(run.target >= run.entitlement && run.guest.memory.held() <= spec.limit);
        let owed = spec.reservation.saturating_sub(run.charged());
        // A sharer that drops a frame leaves its part of it to the others at once, and they give
        // back what that takes them over their targets only by and by.
        let (grants, runs) = simulation.round(|vm| if vm == i { owed } else { Pages::ZERO });
        let party = runs.iter().position(|run| *run == i).unwrap();
        // What is lent comes back by swapping.
        let lent = |(j, run): (usize, &Run)| {
            let keeps = run.entitlement.max(simulation.scenario.vms[j].reservation);
            run.charged().saturating_sub(keeps).min(simulation.swap_of(j, simulation.swap_left()))
        };
        let lent: Pages = simulation.runs().map(lent).sum();
        let open = grants.allowance(party) + frame.frames + lent;
        prop_assert!(open >= owed, "{} may always have its reservation", spec.name);
    }
    let expected = match frame.state {
        State::High => thresholds.clear,
        State::Clear => thresholds.soft,
        State::Soft => thresholds.hard,
        State::Hard => thresholds.low,
        State::Low => Pages::ZERO,
    };
    // The state worsens at once, so that it is never better than what is free.
    prop_assert!(frame.free >= expected, "{:?} with {:?} free", frame.state, frame.free);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn memory_is_conserved_and_nobody_is_below_its_reservation_at_any_step(scenario in any_scenario()) {
        let mut simulation = Simulation::new(scenario);
        while simulation.step() {
            check(&simulation)?;
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_course(scenario in any_scenario()) {
        let (a, b) = (simulate(&scenario), simulate(&scenario));
        prop_assert_eq!(a.in_state, b.in_state);
        prop_assert_eq!(a.frames.last().map(|f| f.vms.clone()), b.frames.last().map(|f| f.vms.clone()));
        let all: Duration = a.in_state.iter().sum();
        prop_assert_eq!(all, scenario.duration);
    }
}

/// One VM of `size` that uses `active` from the start.
fn simple(size: u64, reservation: u64, active: u64) -> VmFacts {
    ((size, reservation, 1000), (0, None), (false, Some(0)), (active, active, 0), (true, false, false))
}

#[test]
fn another_seed_gives_another_course_and_the_same_outcome() {
    let run = |seed| {
        let course = simulate(&scenario(300, 0, seed, vec![simple(256, 0, 120), simple(256, 0, 120)]));
        course.frames.last().map(|f| (f.vms[0].estimate.0, f.vms[0].held.0)).unwrap()
    };
    let (a, b) = (run(1), run(2));
    assert_ne!(a, b);
    assert!(a.1.abs_diff(b.1) < mib(30).0, "{a:?} {b:?}");
}

#[test]
fn a_host_with_room_leaves_everybody_alone() {
    let course = simulate(&scenario(1000, 0, 1, vec![simple(256, 0, 200), simple(256, 0, 200)]));
    assert_eq!(course.part_in(STATES[0]), 1.0);
    assert_eq!(
        (course.peaks.ballooned, course.peaks.short, course.swapped_out),
        (Pages(0), Pages(0), Pages(0))
    );
    assert!(course.vms.iter().all(|vm| vm.waited <= seconds(3)), "{:?}", course.vms);
}

#[test]
fn who_is_refused_says_why_and_starts_when_another_has_ended() {
    let mut vms = vec![simple(256, 200, 10), simple(256, 200, 10)];
    vms[0].1.1 = Some(30);
    let course = simulate(&scenario(300, 0, 1, vms));
    assert_eq!(course.events.len(), 1);
    assert!(course.events[0].text.contains("208MiB more machine memory"), "{:?}", course.events);
    assert_eq!((course.vms[0].ran, course.vms[1].ran), (seconds(30), seconds(60)));
}

#[test]
fn a_host_whose_balloons_bring_nothing_is_strained_after_ten_seconds_in_state_soft() {
    let late = ((256, 0, 1000), (20, None), (false, Some(0)), (120, 120, 0), (false, false, false));
    let idle = ((256, 0, 1000), (0, None), (false, Some(0)), (10, 10, 220), (false, false, false));
    let mut scenario = scenario(560, 0, 1, vec![idle, idle, late]);
    scenario.host.balloon_speed = Bytes::ZERO;
    let mut simulation = Simulation::new(scenario);
    let mut soft = Vec::new();
    while simulation.step() && soft.len() < 20 {
        if simulation.frame().state >= State::Soft {
            soft.push(simulation.states.is_strained());
        }
    }
    let first = soft.iter().position(|strained| *strained);
    assert!(first.is_some_and(|first| (9..=11).contains(&first)), "{soft:?}");
}

#[test]
fn swap_space_is_reserved_too() {
    let course = simulate(&scenario(900, 300, 1, vec![simple(256, 50, 10), simple(256, 50, 10)]));
    assert_eq!(course.vms[1].ran, Duration::ZERO);
    assert!(
        course.events[0].text.contains("206MiB more swap space (size - reservation), and 94MiB"),
        "{:?}",
        course.events
    );
}

#[test]
fn a_guest_that_zeroes_its_memory_before_its_driver_is_there_costs_little_swap() {
    let boot = |reservation| {
        ((256, reservation, 1000), (0, None), (true, Some(60)), (20, 20, 0), (false, false, false))
    };
    let course = simulate(&scenario(450, 2000, 1, vec![boot(50), boot(50), boot(50)]));
    assert!(course.peaks.zero > mib(100), "{:?}", course.peaks);
    assert!(course.swapped_out < mib(30), "{:?}", course.swapped_out);
}

#[test]
fn parameters_change_on_the_way() {
    let mut scenario = scenario(300, 0, 1, vec![simple(256, 0, 200), simple(256, 0, 200)]);
    scenario.duration = seconds(300);
    let what = Changed::Vm { name: "vm1".into(), shares: Some(9000), reservation: None, limit: None };
    scenario.changes.push(crate::Change { at: seconds(100), what });
    let course = simulate(&scenario);
    let held = |at, i: usize| course.at(seconds(at)).unwrap().vms[i].held;
    assert!(held(90, 0).0.abs_diff(held(90, 1).0) < mib(30).0);
    assert!(held(299, 1).0 > held(299, 0).0 * 2, "{:?} {:?}", held(299, 0), held(299, 1));
}

/// A VM that reserves 512 MiB and uses 8 for a while, and one that wants 900 MiB, on a host of 1
/// GiB.
fn lending(swap: u64) -> Scenario {
    let lender = ((512, 512, 1000), (0, None), (false, Some(0)), (8, 500, 0), (true, false, false));
    let mut scenario = scenario(1024, swap, 1, vec![lender, simple(1000, 0, 900)]);
    (scenario.host.swap_speed, scenario.duration) = (Bytes::mib(400), seconds(80));
    scenario.vms.iter_mut().for_each(|vm| vm.guest.demand.jitter = 0.0);
    scenario
}

#[test]
fn what_is_reserved_and_unused_is_lent_where_swapping_brings_it_back_when_it_is_wanted() {
    let course = simulate(&lending(2000));
    let at = |second| course.at(seconds(second)).unwrap();
    assert!(at(38).vms[1].held > mib(850), "{}", at(38).vms[1].held.bytes());
    assert_eq!((at(38).vms[1].swapped, at(38).state), (mib(0), State::High));
    // From the 40th second on the lender's demand rises by 100 MiB a second; reclaim takes steps of
    // a second, too.
    for second in 50..80 {
        assert!(at(second).vms[0].held >= mib(490), "{second}: {}", at(second).vms[0].held.bytes());
    }
    let kept = simulate(&lending(0));
    let most = kept.frames.iter().map(|frame| frame.vms[1].held).max().unwrap();
    assert!(most < mib(512), "{}", most.bytes());
}

#[test]
fn a_vm_that_waits_in_vain_pages_for_itself_after_a_period_and_one_at_its_limit_at_once() {
    let mut scenario = scenario(1000, 2000, 1, vec![simple(512, 0, 300)]);
    (scenario.host.swap_speed, scenario.vms[0].limit) = (Bytes::mib(400), mib(100));
    scenario.vms[0].guest.balloon_after = None;
    let course = simulate(&scenario);
    let last = course.frames.last().unwrap().vms[0];
    assert!(last.swapped > mib(150) && last.held <= mib(100), "{last:?}");
}
