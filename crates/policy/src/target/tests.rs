use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::balloon::Sizing;
use crate::client::Client;
use crate::demo_host::{decide, decide_in, host, mib, pool, vm, weighing};
use crate::division::Cause;
use crate::inflation::Inflation;
use crate::mechanisms::Mechanisms;
use crate::pool::NamedPool;
use crate::vm::Driver;

#[test]
fn nothing_is_taken_while_the_host_has_memory() {
    let vms = [vm(120, 10, 0), vm(200, 10, 0), vm(60, 10, 0)];
    let decisions = decide(&host(218, State::High), &vms);
    assert!(decisions.iter().all(|d| d.balloon == Pages(0)), "{decisions:?}");
}

#[test]
fn a_reservation_comes_before_min_free() {
    // 4 * 149 = 596 of 598 MiB are reserved, and minFree is 38.
    let reserved = |active| {
        let mut vm = vm(149, active, 0);
        vm.member.client.reservation = mib(149);
        vm
    };
    let vms = [reserved(149), reserved(5), reserved(5), reserved(5)];
    let outcome = super::decide(&Rules::default(), &host(2, State::Low), &PoolTree::default(), &vms);
    assert!(outcome.shortfalls.is_empty() && outcome.available == mib(596), "{outcome:?}");
    assert!(outcome.vms.iter().all(|d| d.entitlement == mib(149) && d.target == mib(149)), "{outcome:?}");
    // Memory that was lost after admission cannot be divided, reserved or not.
    let lost = Host { for_guests: mib(400), ..host(2, State::Low) };
    let outcome = super::decide(&Rules::default(), &lost, &PoolTree::default(), &vms);
    assert!(outcome.shortfalls.len() == 1 && outcome.available == mib(400), "{outcome:?}");
}

#[test]
fn memory_goes_from_the_idle_to_the_one_that_needs_it() {
    let vms = [vm(180, 256, 4), vm(139, 5, 0), vm(139, 5, 0), vm(139, 5, 0)];
    let decisions = decide(&host(1, State::Low), &vms);
    assert_eq!((decisions[0].entitlement, decisions[0].balloon), (mib(256), Pages(0)));
    let freed: u64 = vms[1..].iter().zip(&decisions[1..]).map(|(v, d)| v.held.0 - d.target.0).sum();
    assert!(Pages(freed) >= mib(75), "{decisions:?}");
}

#[test]
fn shares_are_worth_more_than_the_entitlement_only_where_the_size_holds_it_down() {
    let mut vms = [vm(100, 256, 0), vm(139, 256, 0), vm(139, 256, 0), vm(139, 256, 0)];
    vms[0].member.client.shares *= 100;
    let decisions = decide(&host(1, State::Low), &vms);
    assert_eq!(decisions[0].entitlement, mib(256));
    let others = decisions[1].entitlement.0;
    assert!(decisions[0].worth.0.abs_diff(100 * others) <= 100, "{decisions:?}");
    for decision in &decisions[1..] {
        assert!(decision.worth.0.abs_diff(decision.entitlement.0) <= 1, "{decision:?}");
    }
}

#[test]
fn who_waits_for_what_it_is_entitled_to_is_served_from_those_above_their_entitlements() {
    // The host is in state high, but free memory above minFree does not suffice for the VM that
    // waits.
    let vms = [vm(250, 256, 0), vm(250, 256, 0), vm(64, 256, 100)];
    let outcome = decide_in(&PoolTree::default(), &host(40, State::High), &vms);
    assert!(outcome.reclaiming && outcome.owed == mib(100), "{outcome:?}");
    assert_eq!(outcome.mechanisms, Mechanisms::of(State::Soft));
    // They use all that they have: no idle memory covers the shortage. They give the memory that is
    // owed, and no more: the host has memory.
    let minfree = host(40, State::High).thresholds.clear;
    let gives = |outcome: &Outcome| -> u64 {
        outcome.vms[..2].iter().map(|d| mib(250).saturating_sub(d.target).0).sum()
    };
    assert!(gives(&outcome).abs_diff((mib(60) + minfree).0) <= 2, "{outcome:?}");
    // In a state that is short of memory they give down to their entitlements and loans.
    let short = decide_in(&PoolTree::default(), &host(20, State::Soft), &vms);
    for decision in &short.vms[..2] {
        let claim = decision.entitlement + decision.lent;
        assert_eq!((decision.target, decision.sizing), (claim, Sizing::FollowsTarget));
    }
    // A VM that is taken to lack more than its faults wait for is owed that, too.
    let lacking = [vms[0], vms[1], Vm { lacks: mib(100), ..vm(64, 256, 4) }];
    let outcome = decide_in(&PoolTree::default(), &host(40, State::High), &lacking);
    assert!(gives(&outcome).abs_diff((mib(60) + minfree).0) <= 2, "{outcome:?}");
    // All of it that is not free is paged out of other VMs at once, not only the part that faults
    // wait for.
    let paged: Pages = outcome.vms.iter().map(|d| d.reclaim.compression + d.reclaim.swap).sum();
    assert!(paged >= mib(60), "{outcome:?}");
    let patient = [vms[0], vms[1], vm(64, 256, 0)];
    assert!(!decide_in(&PoolTree::default(), &host(40, State::High), &patient).reclaiming);
}

#[test]
fn a_balloon_gives_way_when_its_vm_is_entitled_to_more() {
    let squeezed = Vm { target: mib(100), ..vm(100, 250, 0) };
    let decisions = decide(&host(60, State::High), &[squeezed, vm(100, 5, 0), vm(100, 5, 0)]);
    assert_eq!(decisions[0].balloon, Pages(0), "{decisions:?}");
}

#[test]
fn a_working_set_is_spared_while_others_hold_idle_memory() {
    // The third is entitled to all of its memory by its shares, which leaves 118 MiB to the first
    // and 65 to the second.
    let vms = [weighing(1, vm(200, 160, 0)), weighing(2, vm(200, 8, 0)), weighing(20, vm(38, 256, 0))];
    let host = Host { for_guests: mib(478), ..host(40, State::Soft) };
    let outcome = decide_in(&PoolTree::default(), &host, &vms);
    let [busy, idle, _] = &outcome.vms[..] else { panic!() };
    assert!(busy.entitlement < mib(200) && busy.target == mib(200), "{busy:?}");
    assert_eq!(busy.sizing, Sizing::WorkingSet);
    // With idle memory of its own it gives of that, and the working set does not matter.
    let rich = [Vm { held: mib(240), ..vms[0] }, vms[1], vms[2]];
    let rich = decide_in(&PoolTree::default(), &host, &rich).vms[0];
    assert!(rich.target > mib(200) && rich.sizing == Sizing::FollowsTarget, "{rich:?}");
    assert!(idle.target < mib(110), "{idle:?}");
}

#[test]
fn a_vm_that_wakes_up_below_its_working_set_is_lifted_to_it_from_what_is_free_or_idle() {
    let awake = Vm { target: mib(100), ..vm(100, 144, 0) };
    let quiet = decide(&host(218, State::High), &[awake, vm(140, 5, 0), vm(140, 5, 0)]);
    assert!(quiet[0].target >= mib(180) && quiet[1].target == mib(256), "{quiet:?}");
    // Its entitlement is 96 MiB, 80 are missing, 7 are free above minFree, and two VMs hold more
    // than their entitlements and working sets.
    let vms = [awake, vm(170, 5, 0), vm(163, 5, 0), vm(16, 256, 0)];
    let vms: Vec<Vm> = vms.into_iter().zip([1, 2, 2, 20]).map(|(vm, shares)| weighing(shares, vm)).collect();
    let host = Host { for_guests: mib(494), ..host(45, State::High) };
    let outcome = decide_in(&PoolTree::default(), &host, &vms);
    let total = |part: fn(&Decision) -> Pages| outcome.vms.iter().map(part).sum::<Pages>();
    assert!(outcome.vms[0].target >= mib(180) && outcome.reclaiming, "{outcome:?}");
    assert_eq!(outcome.shortage, Pages(0));
    assert!((mib(73).0..=mib(73).0 + 2).contains(&total(|d| d.reclaim.balloon).0), "{outcome:?}");
}

#[test]
fn a_balloon_grows_no_faster_than_it_may_and_no_larger_than_any() {
    let idle = vm(256, 0, 0);
    let crowd = [idle, vm(256, 256, 0), vm(86, 256, 0)];
    let slow = Host { elapsed: Duration::from_millis(500), ..host(0, State::Soft) };
    let first = decide(&slow, &crowd)[0];
    assert_eq!((first.balloon, first.sizing), (mib(64), Sizing::GrowsSlowly));
    // All of it may come at once in an hour, but never more than 65 %.
    let lowest = Vm {
        member: Member {
            client: Client { reservation: Pages(0), limit: mib(50), ..idle.member.client },
            ..idle.member
        },
        ..idle
    };
    let late = decide(&host(0, State::Soft), &[lowest])[0];
    assert_eq!((late.balloon, late.sizing), (Pages(mib(256).0 * 65 / 100), Sizing::Largest));
    // The rest beyond the balloon is paged out: as much as the store holds is compressed, the rest
    // is swapped.
    let beyond = mib(256) - late.balloon - mib(50);
    assert_eq!(
        (late.reclaim.balloon, late.reclaim.compression),
        (mib(256) - mib(50) - beyond, Pages(mib(256).0 / 10))
    );
    assert_eq!(late.reclaim.swap, beyond - late.reclaim.compression);
    // It shrinks at once.
    let full = Vm { balloon: mib(160), held: mib(96), target: mib(96), ..vm(96, 256, 50) };
    let deflated = decide(&Host { elapsed: Duration::ZERO, ..host(400, State::High) }, &[full])[0];
    assert_eq!((deflated.balloon, deflated.sizing), (Pages(0), Sizing::NotNeeded));
}

#[test]
fn where_balloons_have_not_sufficed_for_long_pages_are_taken_too() {
    let vms = [vm(200, 10, 0), vm(200, 256, 50), vm(178, 256, 0)];
    let host = host(20, State::Soft);
    let first = |strained| decide(&Host { strained, ..host }, &vms)[0];
    let paged = |decision: Decision| decision.reclaim.compression + decision.reclaim.swap;
    let due = paged(first(false));
    let all = paged(first(true));
    assert_eq!(all, vms[0].held - first(true).target);
    assert!(due < all, "{due:?} and {all:?}");
}

#[test]
fn pages_that_a_balloon_would_not_bring_in_time_are_paged_and_the_balloon_takes_its_time() {
    let vms = [vm(200, 10, 0), vm(200, 256, 50), vm(178, 256, 0)];
    // 100 pages a second.
    let mut slow = Inflation::default();
    (0..3).for_each(|i| slow.observe(Duration::from_secs(1), mib(256), mib(100), Pages(100 * (i + 1))));
    let first = |inflation, hollow| {
        let first = Vm { hollow, inflation, balloon: mib(20), ballooned: mib(20), ..vms[0] };
        decide(&host(20, State::Soft), &[first, vms[1], vms[2]])[0]
    };
    let paged = |decision: Decision| decision.reclaim.compression + decision.reclaim.swap;
    let all = first(Inflation::default(), mib(56));
    let (some, none) = (first(slow, Pages(200)), first(slow, mib(56)));
    let due = paged(all);
    assert!(all.reclaim.balloon > mib(100) && due < mib(100), "{all:?}");
    assert_eq!(some.reclaim.balloon, Pages(800));
    let above = vms[0].held - none.target;
    assert_eq!((none.reclaim.balloon, paged(none)), (Pages::ZERO, above));
    assert!(due < paged(some) && paged(some) < above, "{some:?}");
    // While it brings some, it grows as fast as it may.
    assert!(some.balloon == all.balloon && all.sizing != Sizing::TooSlow, "{some:?}");
    assert_eq!((none.balloon, none.sizing), (mib(20) + Pages(64), Sizing::TooSlow));
    // One that is slow does not hurry where its VM has nothing to give.
    let below = |inflation| {
        let below = Vm { inflation, held: mib(60), balloon: mib(20), ballooned: mib(20), ..vms[0] };
        decide(&host(20, State::Soft), &[below, vms[1], vms[2]])[0]
    };
    assert_eq!(below(slow).sizing, Sizing::TooSlow);
    assert!(below(Inflation::default()).balloon > below(slow).balloon);
}

#[test]
fn a_balloon_takes_its_time_where_nothing_has_to_come() {
    let told = Vm { target: mib(150), balloon: mib(80), ballooned: mib(30), ..vm(160, 10, 0) };
    let others = [vm(200, 256, 0), vm(160, 256, 0)];
    let first = |state, free, vm| decide(&host(free, state), &[vm, others[0], others[1]])[0];
    // The host has memory, and no VM is owed any.
    let stops = first(State::High, 42, told);
    assert_eq!((stops.balloon, stops.sizing), (mib(30), Sizing::Unhurried), "{stops:?}");
    let steps = first(State::High, 42, Vm { ballooned: told.balloon, ..told });
    assert_eq!((steps.balloon, steps.sizing), (mib(80) + Pages(64), Sizing::Unhurried), "{steps:?}");
    // A driver that comes finds the size that its VM is to have. One that is stuck is not told what
    // it has reached: that would look as if it followed.
    for driver in [Driver::Absent, Driver::Stuck] {
        let grows = first(State::High, 42, Vm { driver, ballooned: Pages(0), ..told });
        assert!(grows.balloon > told.balloon, "{driver:?}: {grows:?}");
    }
    // Its memory is needed.
    let takes = first(State::Soft, 20, told);
    assert!(takes.target < told.held && takes.balloon > told.balloon, "{takes:?}");
    // A limit below its size always holds.
    let client = Client { limit: mib(140), ..told.member.client };
    let limited = Vm { member: Member { client, ..told.member }, held: mib(100), target: mib(140), ..told };
    let limited = first(State::High, 300, limited);
    assert_eq!(limited.balloon, mib(256 - 140), "{limited:?}");
}

#[test]
fn a_balloon_does_not_grow_in_a_guest_that_needs_memory_and_has_none_to_give() {
    let lacking = Vm { lacks: mib(40), wanted: Pages(1), target: mib(200), ..vm(200, 256, 256) };
    let lacking = Vm { balloon: mib(8), ..lacking };
    let crowd = |busy| [busy, vm(200, 256, 256), vm(190, 256, 256)];
    let balloon = |busy| decide(&host(20, State::Clear), &crowd(busy))[0];
    let kept = balloon(lacking);
    assert_eq!((kept.balloon, kept.sizing), (mib(8), Sizing::VmLacks), "{kept:?}");
    // A VM above its target gives all the same.
    let taken = decide(&host(0, State::Soft), &crowd(Vm { held: mib(240), ..lacking }))[0];
    assert!(taken.target < mib(238) && taken.balloon > mib(8), "{taken:?}");
}

#[test]
fn a_pools_limit_holds_however_much_memory_the_host_has() {
    let pools = PoolTree::new(&[pool("capped", Some(300)), pool("open", None)]).unwrap();
    let inside = |name, vm: Vm| Vm { member: Member { pool: pools.find(name).unwrap(), ..vm.member }, ..vm };
    let roomy = Host { for_guests: mib(4096), ..host(2000, State::High) };
    let vms =
        [inside("capped", vm(200, 200, 0)), inside("capped", vm(200, 5, 0)), inside("open", vm(100, 5, 0))];
    let outcome = decide_in(&pools, &roomy, &vms);
    let [busy, idle, open] = &outcome.vms[..] else { panic!() };
    assert_eq!(busy.cause, Cause::PoolLimit(pools.find("capped").unwrap()));
    assert!(busy.target + idle.target <= mib(300), "{outcome:?}");
    assert_eq!((busy.most, idle.most, open.most), (busy.target, idle.target, mib(256)));
    assert_eq!((open.target, open.cause), (mib(256), Cause::Limit));
    // The idle one has to give although the host lacks nothing.
    assert!(!outcome.reclaiming, "{outcome:?}");
    let Reclaim { balloon, compression, swap, .. } = idle.reclaim;
    assert_eq!(balloon + compression + swap, mib(200) - idle.target);
    let driverless = vms.map(|vm| Vm { driver: Driver::Absent, ..vm });
    let idle = decide_in(&pools, &roomy, &driverless).vms[1];
    assert_eq!(idle.reclaim.swap + idle.reclaim.compression, mib(200) - idle.target);
    let totals = outcome.pools[pools.find("capped").unwrap().index()];
    assert_eq!((totals.held, totals.target), (mib(400), busy.target + outcome.vms[1].target));
    assert_eq!(outcome.pools[0].held, mib(500));
}

const STATES: [State; 5] = [State::High, State::Clear, State::Soft, State::Hard, State::Low];

/// Pools in pools: "outer" and "inner" have limits, "leaf" below them has none.
fn nested() -> PoolTree {
    let inside =
        |name: &str, parent: &str, limit| NamedPool { parent: Some(parent.to_owned()), ..pool(name, limit) };
    PoolTree::new(&[
        pool("outer", Some(300)),
        inside("inner", "outer", Some(200)),
        inside("leaf", "inner", None),
    ])
    .unwrap()
}

/// Random VMs, in the root or one of the [`nested`] pools.
fn any_vms() -> impl Strategy<Value = Vec<Vm>> {
    let pools: Vec<PoolId> = nested().ids().collect();
    let driver = prop::sample::select(vec![Driver::Follows, Driver::Follows, Driver::Absent, Driver::Stuck]);
    let one = (0..=256u64, 0..=256u64, 0..50u64, 0..=256u64, 1..8u64, driver, prop::sample::select(pools));
    let one = one.prop_map(move |(held, active, wanted, target, shares, driver, pool)| {
        let mut one = Vm { target: mib(target), driver, ..weighing(shares, vm(held, active, wanted)) };
        one.member.client.reservation = mib(16);
        one.member.pool = pool;
        one
    });
    prop::collection::vec(one, 1..8)
}

proptest! {
    #[test]
    fn no_balloon_holds_a_vm_below_its_working_set_while_somebody_holds_idle_memory(
        facts in prop::collection::vec((0..=256u64, 0..=256u64, 0..50u64, 0..=256u64, 1..8u64), 1..6), free in 0..300u64, state in 0usize..5,
    ) {
        let vms: Vec<Vm> = facts.into_iter().map(|(held, active, wanted, target, shares)| {
            let mut one = Vm { target: mib(target), ..vm(held, active, wanted) };
            one.member.client.shares = shares;
            one
        }).collect();
        let decisions = decide(&host(free, STATES[state]), &vms);
        let below = vms.iter().zip(&decisions).any(|(v, d)| d.target < d.working_set.min(v.member.client.limit));
        let idle = vms.iter().zip(&decisions).find(|(v, d)| v.held.min(d.target) > (d.entitlement + d.lent).max(d.working_set));
        prop_assert!(!below || idle.is_none(), "{:?} {:?}", decisions, idle);
    }

    #[test]
    fn whatever_the_situation_bounds_and_pools_limits_hold_and_nobody_is_rewarded_for_not_following(
        vms in any_vms(), free in 0..700u64, state in 0usize..5,
    ) {
        let pools = nested();
        let outcome = decide_in(&pools, &host(free, STATES[state]), &vms);
        let lends = outcome.vms.iter().any(|d| d.lent > Pages::ZERO);
        // Within a pool's limit a loan counts for the borrower.
        let least = |d: &Decision, v: &Vm| if lends { d.entitlement.min(v.held) } else { d.entitlement };
        for (d, v) in outcome.vms.iter().zip(&vms) {
            prop_assert!(least(d, v) <= d.target && d.target <= d.most && d.most <= v.member.client.limit, "{:?}", d);
            prop_assert!(v.driver == Driver::Follows || d.target <= (d.entitlement + d.lent).max(v.target), "{:?}", d);
            let above = v.held.saturating_sub(d.target);
            let Reclaim { balloon, compression, swap, block } = d.reclaim;
            prop_assert!(balloon <= above && compression + swap <= above && block <= above, "{:?}", d);
        }
        for (id, pool, totals) in pools.ids().filter_map(|id| Some((id, pools.get(id)?.pool, outcome.pools[id.index()]))) {
            let inside = |vm: &Vm| pools.ancestors(vm.member.pool).any(|above| above == id);
            let most: Pages = vms.iter().zip(&outcome.vms).filter(|(v, _)| inside(v)).map(|(_, d)| d.most).sum();
            let limit = pool.limit.unwrap_or(mib(200));
            prop_assert!(totals.target <= limit && most <= limit, "{:?} {:?}", id, totals);
            prop_assert!(lends || totals.entitlement <= totals.target, "{:?} {:?}", id, totals);
        }
        prop_assert_eq!(outcome.pools[0].target, outcome.vms.iter().map(|d| d.target).sum::<Pages>());
    }

    #[test]
    fn targets_stay_between_entitlement_and_limit_and_balloons_within_their_bound(
        facts in prop::collection::vec((0..300u64, 0..300u64, 0..50u64, 0..256u64), 1..6), free in 0..700u64, state in 0usize..5,
    ) {
        let vms: Vec<Vm> =
            facts.into_iter().map(|(h, a, w, t)| Vm { target: mib(t), ..vm(h.min(256), a, w) }).collect();
        for (d, v) in decide(&host(free, STATES[state]), &vms).iter().zip(&vms) {
            prop_assert!(d.entitlement <= d.target && d.target <= v.member.client.limit);
            prop_assert!(d.balloon.0 * 100 <= v.size.0 * 65);
        }
    }

    #[test]
    fn what_is_taken_brings_free_memory_to_high_where_entitlements_allow(
        held in prop::collection::vec((64..256u64, 0..256u64), 4), free in 0..20u64,
    ) {
        let vms: Vec<Vm> = held.iter().map(|&(held, active)| vm(held, active, 0)).collect();
        let host = host(free, State::Soft);
        let decisions = decide(&host, &vms);
        let taken: u64 = vms.iter().zip(&decisions).map(|(v, d)| v.held.0.saturating_sub(d.target.0)).sum();
        let excess: u64 = vms.iter().zip(&decisions).map(|(v, d)| v.held.0.saturating_sub((d.entitlement + d.lent).0)).sum();
        let needed = host.thresholds.high.0 - host.free.0;
        // More is taken only for VMs that are lifted to their working sets.
        let lifted: u64 = vms.iter().zip(&decisions).map(|(v, d)| d.target.0.saturating_sub(v.held.0)).sum();
        prop_assert!(taken >= needed.min(excess) && taken <= needed + lifted + 8, "{} {} {}", taken, needed, excess);
    }
}
