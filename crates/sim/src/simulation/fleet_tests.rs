//! Random fleets in closed loop: the policy against guests that follow it, over some minutes.
//!
//! `PLIMSOLL_FLEETS` sets how many fleets each property is tried on.

use plimsoll_policy::{Client, Member, Tax, Thresholds, divide};
use proptest::prelude::*;

use super::tests::{mib, scenario, seconds};
use super::*;
use crate::demand::{Curve, Point, Want};

/// When all guests change what they use, and when everything is to be at rest again.
const TURN: u64 = 60;
const REST: u64 = 400;
const END: u64 = 460;

/// One VM of a fleet.
#[derive(Clone, Copy, Debug)]
struct Plan {
    size: u64,
    shares: u64,
    /// What it uses before and after the turn, in MiB.
    uses: (u64, u64),
    /// What it keeps beyond that.
    cache: u64,
    reports_free: bool,
}

fn any_plan() -> impl Strategy<Value = Plan> {
    (64..300u64, 500..2000u64, 0.0..0.9f64, 0.0..0.9f64, 0..60u64, any::<bool>()).prop_map(
        |(size, shares, before, after, cache, reports_free)| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let part = |of: f64| (size as f64 * of) as u64;
            Plan { size, shares, uses: (part(before), part(after)), cache, reports_free }
        },
    )
}

/// A fleet on a host that holds from half to all of its sizes.
fn any_fleet() -> impl Strategy<Value = Scenario> {
    let swap = prop::sample::select(vec![0u64, 4000]);
    (0.5..1.0f64, swap, any::<u64>(), prop::collection::vec(any_plan(), 2..7)).prop_map(
        |(part, swap, seed, plans)| {
            let all: u64 = plans.iter().map(|plan| plan.size).sum();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let memory = (all as f64 * part) as u64 + 8 * plans.len() as u64 + 32;
            fleet(memory, swap, seed, &plans)
        },
    )
}

fn fleet(memory: u64, swap: u64, seed: u64, plans: &[Plan]) -> Scenario {
    let facts = plans.iter().map(|plan| {
        let flags = (plan.reports_free, true, false);
        ((plan.size, 0, plan.shares), (0, None), (false, Some(2)), (0, 0, plan.cache), flags)
    });
    let mut scenario = scenario(memory, swap, seed, facts.collect());
    scenario.duration = seconds(END);
    for (vm, plan) in scenario.vms.iter_mut().zip(plans) {
        let want = |active| Want {
            active: Bytes::mib(active),
            content: Some(Bytes::mib((active + plan.cache).min(plan.size))),
        };
        let point = |at, active| Point { at: seconds(at), ramp: seconds(2), want: want(active) };
        vm.guest.demand.curve = Curve::Points(vec![point(0, plan.uses.0), point(TURN, plan.uses.1)]);
        vm.guest.demand.jitter = 0.0;
    }
    scenario
}

/// Returns the entitlement of VM `index` if policy knew the memory that its guest uses, and took
/// other VMs to use all memory that they keep: a guest that wants its page cache back faults for it
/// as for any memory.
fn ideal(scenario: &Scenario, index: usize) -> Pages {
    let memory = Pages::floor(scenario.host.memory);
    let overhead: Pages = scenario.vms.iter().map(|vm| vm.overhead).sum();
    let min_free = scenario.host.thresholds.of(scenario.host.memory).clear;
    let member = |(i, vm): (usize, &crate::VmSpec)| {
        let active = if i == index { uses(vm).0 } else { uses(vm).1 };
        let client = Client { reservation: vm.reservation, limit: vm.limit, shares: vm.shares, active };
        Member { client, tax: None, pool: PoolId::ROOT }
    };
    let members: Vec<Member> = scenario.vms.iter().enumerate().map(member).collect();
    let available = memory.saturating_sub(overhead).saturating_sub(min_free);
    divide(available, Tax::DEFAULT, &scenario.pools, &members).vms[index]
}

/// What a guest of `size` keeps available.
fn reserve(size: Pages) -> Pages {
    Thresholds::sliding(size.bytes()).clear
}

/// What a VM's guest uses at the end, and what it keeps.
fn uses(vm: &crate::VmSpec) -> (Pages, Pages) {
    let Curve::Points(points) = &vm.guest.demand.curve else { unreachable!("fleets use points") };
    let want = points.last().expect("a curve has points").want;
    (Pages::ceil(want.active), Pages::ceil(want.content.unwrap_or(want.active)))
}

/// How often `values` turn around by `felt` or more.
fn swings(values: impl Iterator<Item = Pages>, felt: Pages) -> u32 {
    let (mut low, mut high, mut rises, mut count) = (Pages(u64::MAX), Pages::ZERO, None, 0);
    for value in values {
        (low, high) = (low.min(value), high.max(value));
        let turned = match rises {
            None if high - low >= felt => true,
            Some(true) => high - value >= felt,
            Some(false) => value - low >= felt,
            None => false,
        };
        if turned {
            count += u32::from(rises.is_some());
            rises = Some(!rises.unwrap_or(value != high));
            (low, high) = (value, value);
        }
    }
    count
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("PLIMSOLL_FLEETS").ok().and_then(|n| n.parse().ok());
    ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::with_cases(cases.unwrap_or(100)) }
}

proptest! {
    #![proptest_config(cases())]

    /// Each VM has the memory that it uses, as far as the exact division with its true use gives it
    /// that.
    #[test]
    fn a_vm_that_needs_memory_and_is_entitled_to_it_has_it_at_rest(fleet in any_fleet()) {
        let course = simulate(&fleet);
        for (i, vm) in fleet.vms.iter().enumerate() {
            let needs = uses(vm).0.min(ideal(&fleet, i));
            let slack = Pages(vm.size.0 / 10) + mib(4);
            for frame in course.frames.iter().filter(|frame| frame.at >= seconds(REST)) {
                let has = frame.vms[i].active.saturating_sub(frame.vms[i].short);
                // Without swap space a balloon takes what guests have to spare, and no more.
                let idle = |(j, other): (usize, &crate::VmFrame)| {
                    let size = fleet.vms[j].size;
                    let least = size.saturating_sub(Pages(size.0 * u64::from(Rules::LARGEST_BALLOON) / 100));
                    let keeps = other.entitlement.max(other.active + reserve(size)).max(least);
                    other.held.saturating_sub(keeps)
                };
                let idle: Pages = frame.vms.iter().enumerate().map(idle).sum();
                let nothing_to_take = fleet.host.swap == Bytes::ZERO && idle <= slack;
                prop_assert!(
                    has + slack >= needs || nothing_to_take,
                    "{} at {:?} s works with {} of {}: {:?}",
                    vm.name, frame.at.as_secs(), has.bytes(), needs.bytes(), frame
                );
            }
        }
    }

    /// Once nothing changes, targets and entitlements do not swing to and fro.
    #[test]
    fn no_fleet_swings_at_rest(fleet in any_fleet()) {
        let course = simulate(&fleet);
        for (i, vm) in fleet.vms.iter().enumerate() {
            let felt = Pages(vm.size.0 / 20) + mib(2);
            let at_rest = || course.frames.iter().filter(|f| f.at >= seconds(REST)).map(|f| &f.vms[i]);
            let (targets, entitlements) =
                (swings(at_rest().map(|f| f.target), felt), swings(at_rest().map(|f| f.entitlement), felt));
            prop_assert!(
                targets <= 2 && entitlements <= 2,
                "{} of {}: {} swings of its target, {} of its entitlement within {} s: {:?}",
                vm.name, vm.size.bytes(), targets, entitlements, END - REST,
                at_rest().map(|f| (f.entitlement.0 / 256, f.target.0 / 256, f.estimate.0 / 256)).collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn swings_are_counted() {
    let count = |values: &[u64]| swings(values.iter().map(|v| Pages(*v)), Pages(10));
    assert_eq!(count(&[0, 5, 9, 3, 8]), 0);
    assert_eq!(count(&[0, 10, 20, 30]), 0);
    assert_eq!(count(&[0, 10, 20, 12]), 0);
    assert_eq!(count(&[0, 20, 5]), 1);
    assert_eq!(count(&[50, 20, 40, 20]), 2);
}
