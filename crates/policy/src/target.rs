//! What each VM's mechanisms are to do: from entitlements, the host's state and what VMs hold to
//! targets, balloons and amounts.
//!
//! **Entitlements** divide what is left when minFree stays free or, where more is reserved, as much
//! as is reserved: admission promises all machine memory, and a promise comes before minFree.
//!
//! **What VMs leave** of their entitlements is lent to VMs that use or lack more than theirs
//! (`lending.rs`). Wherever this says "entitlement", what is lent is part of it.
//!
//! **Targets** never lie below entitlements. As long as the host has memory they only rise, by what
//! is free beyond the high threshold. Once memory has to be reclaimed ([`Outcome::reclaiming`]) VMs
//! that hold more than they are entitled to give. In state soft and below they give until what is
//! free reaches the high threshold (Waldspurger 2002, section 6.3: targets aim above high in every
//! state), in better states what others lack of their entitlements. Were more taken for those,
//! targets would fall and rise again with every fault that waits for a moment.
//!
//! **Working sets.** What somebody holds beyond his entitlement *and* his working set is idle, and
//! taken first, from all in proportion. Only where that does not suffice do VMs give below their
//! working sets, again in proportion. A VM whose target is below its working set already, because
//! it was idle when the target was set, is lifted to it from what is free above minFree and
//! otherwise from idle memory. So no balloon that works keeps a VM below its working set while
//! somebody holds idle memory. Below its entitlement nobody gives, idle or not: how much idle
//! memory counts against its holder the tax decides, and it has done so when it set the
//! entitlement. Were idle memory within entitlements taken as well, a tax of 0 would not mean what
//! it says.
//!
//! **Who does not follow** (no driver, or a stuck one) is steered to the same target by the next
//! mechanism, and for that it is never rewarded: its target does not rise above its entitlement
//! until it follows again.
//!
//! **Who is owed memory** does not wait for balloons. What VMs lack that they are entitled to, and
//! that is not free, is compressed and swapped out at once of those who hold more than their
//! targets, in proportion, in every state.
//!
//! **Who is owed nothing** and needs more helps himself: a VM at the most that it may have, and one
//! that has waited in vain for a control period, page out pages of their own ([`Decision::level`]).
//!
//! **A pool's limit** holds for its VMs' targets together, in every state: what they would have
//! beyond their entitlements is scaled down to fit. What one of them leaves of its entitlement and
//! another is lent counts once, and for the one that has it: a limit comes before the lender's
//! entitlement.

use std::time::Duration;

use plimsoll_units::Pages;

use crate::balloon::Balloon;
use crate::decision::{Decision, Outcome, PagingCause, PoolOutcome, Reclaim};
use crate::division::{Division, divide_reserving};
use crate::lending::Lending;
use crate::mechanisms::{Mechanisms, Paging};
use crate::member::Member;
use crate::pool::{PoolId, PoolTree};
use crate::pool_limits::PoolLimits;
use crate::rules::Rules;
use crate::state::{State, Thresholds};
use crate::vm::{Driver, Vm};

/// The host, as far as targets depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Machine memory for guests: the budget less all overheads.
    pub for_guests: Pages,
    /// Machine memory promised to nobody.
    pub free: Pages,
    /// What VMs and pools have reserved and not been granted, less what is lent to VMs from which
    /// it comes back at once: see [`Grants::withheld`](crate::Grants::withheld).
    pub withheld: Pages,
    /// Its thresholds.
    pub thresholds: Thresholds,
    /// Its state.
    pub state: State,
    /// Since the last decision: by how much balloons may have grown.
    pub elapsed: Duration,
}

impl Host {
    /// What is divided into entitlements unless more is reserved: what is left for guests when
    /// minFree stays free.
    pub fn available(&self) -> Pages {
        self.for_guests.saturating_sub(self.thresholds.clear)
    }
}

/// Entitlements, targets, balloons and what each mechanism is to do, for all VMs in the order
/// given.
///
/// # Panics
/// Where a VM is in a pool that `pools` does not have.
pub fn decide(rules: &Rules, host: &Host, pools: &PoolTree, vms: &[Vm]) -> Outcome {
    let members: Vec<Member> = vms.iter().map(|vm| vm.member).collect();
    let division = divide_reserving(host.available(), host.for_guests, rules.tax, pools, &members);
    let Lending { claims, standing } = Lending::new(pools, vms, &division.vms);
    let balance = Balance::new(rules, host, vms, &claims);
    let wishes = balance.targets(rules, vms, &claims);
    let limits = PoolLimits::new(pools, vms, &standing, &wishes);
    let mechanisms = balance.mechanisms(host.state);
    let target = |i: usize| limits.within(vms[i].member.pool, standing[i], wishes[i]);
    let targets: Vec<Pages> = (0..vms.len()).map(target).collect();
    let due = Due::new(host, balance.due, vms, &targets);
    let decision = |i: usize| {
        let (vm, claim, target) = (&vms[i], claims[i], targets[i]);
        let most = if limits.bind(vm.member.pool) { target } else { vm.member.client.limit };
        let spared = target <= vm.working_set() && balance.spares(rules, vm, claim);
        let balloon = Balloon::new(rules, host.elapsed, vm, target, spared);
        // Who holds more than it ever may has to give, however much memory the host has.
        let mechanisms =
            if vm.held > most { balance.mechanisms(host.state.max(State::Soft)) } else { mechanisms };
        let paged = paged(mechanisms, vm, target, balloon.brings);
        let (paged, for_others) = (paged.max(due.of(vm, target)), due.of(vm, target) > paged);
        let reclaim = Reclaim::new(mechanisms, vm, target, balloon.brings, paged);
        let (level, pages) = level(vm, most, &reclaim, for_others);
        Decision {
            entitlement: division.vms[i],
            lent: claim - division.vms[i],
            cause: division.causes[i],
            pays: vm.member.pays(rules.tax, division.vms[i]),
            bounds: division.bounds[i],
            working_set: vm.working_set(),
            target,
            most,
            balloon: balloon.size,
            sizing: balloon.why,
            reclaim,
            level,
            pages,
        }
    };
    let decisions: Vec<Decision> = (0..vms.len()).map(decision).collect();
    Outcome {
        pools: pool_outcomes(pools, &division, vms, &decisions),
        vms: decisions,
        available: division.available,
        owed: balance.owed,
        shortage: balance.shortage,
        reclaiming: balance.reclaiming(),
        mechanisms,
        shortfalls: division.shortfalls,
    }
}

/// What the host has and lacks.
struct Balance {
    /// Free memory has to reach the high threshold again.
    pressed: bool,
    owed: Pages,
    /// What VMs are taken to lack of their entitlements, what they wait for included.
    due: Pages,
    shortage: Pages,
    /// What idle memory gives: to the shortage, and to working sets for which not enough is free.
    from_idle: Pages,
    /// The part of the shortage that idle memory does not cover.
    uncovered: Pages,
    /// The part that nothing covers that can be taken now.
    beyond_reach: Pages,
    /// What is free beyond what is aimed for.
    surplus: Pages,
    /// By how much targets rise towards working sets.
    lifted: Pages,
    /// The sums over all VMs of [`idle`], [`lean`], [`out_of_reach`], [`lacking`] and
    /// [`below_working_set`].
    idle: Pages,
    lean: Pages,
    out_of_reach: Pages,
    lacking: Pages,
    below: Pages,
}

impl Balance {
    fn new(rules: &Rules, host: &Host, vms: &[Vm], entitled: &[Pages]) -> Self {
        let sum = |part: &dyn Fn(&Vm, Pages) -> Pages| {
            vms.iter().zip(entitled).fold(Pages::ZERO, |sum, (vm, e)| sum.saturating_add(part(vm, *e)))
        };
        let owed = sum(&|vm, e| vm.wanted.min(e.saturating_sub(vm.held)));
        // What they are taken to lack beyond what they wait for now comes with it.
        let due = sum(&|vm, e| vm.wanted.max(vm.lacks).min(e.saturating_sub(vm.held)));
        let open = host.free.saturating_sub(host.withheld).saturating_sub(host.thresholds.clear);
        let pressed = host.state >= State::Soft || owed > open;
        let (idle, lean) = (sum(&|vm, e| idle(rules, vm, e)), sum(&|vm, e| lean(rules, vm, e)));
        let below = sum(&|vm, e| below_working_set(vm, keeps(vm, pressed).max(e)));
        let kept = host.thresholds.high.max(host.withheld.saturating_add(host.thresholds.clear));
        let needed = kept.saturating_add(owed);
        let shortage = if host.state >= State::Soft {
            needed.saturating_sub(host.free)
        } else if pressed {
            // The host has memory: only what is owed has to come.
            let kept = host.thresholds.clear.saturating_add(host.withheld);
            kept.saturating_add(due).saturating_sub(host.free)
        } else {
            Pages::ZERO
        };
        // Who is below his working set may have what is free above minFree, unless that is what is
        // short, and the idle memory that the shortage leaves.
        let free = if pressed { Pages::ZERO } else { open.saturating_sub(owed) };
        let lifted = below.min(free.saturating_add(idle.saturating_sub(shortage)));
        Self {
            pressed,
            owed,
            due,
            shortage,
            from_idle: shortage.min(idle).saturating_add(lifted.saturating_sub(free)),
            uncovered: shortage.saturating_sub(idle),
            beyond_reach: shortage.saturating_sub(idle.saturating_add(lean)),
            surplus: host.free.saturating_sub(needed),
            lifted,
            idle,
            lean,
            out_of_reach: sum(&|vm, e| out_of_reach(rules, vm, e)),
            lacking: sum(&|vm, _| lacking(vm)),
            below,
        }
    }

    fn reclaiming(&self) -> bool {
        self.pressed || self.from_idle > Pages::ZERO
    }

    /// The mechanisms of a host in `state`, which reclaims.
    fn mechanisms(&self, state: State) -> Mechanisms {
        Mechanisms::of(if self.reclaiming() { state.max(State::Soft) } else { state })
    }

    /// The VMs' targets, pools' limits not considered.
    fn targets(&self, rules: &Rules, vms: &[Vm], entitled: &[Pages]) -> Vec<Pages> {
        let target = |(vm, &entitlement): (&Vm, &Pages)| {
            let gives = part(self.from_idle, idle(rules, vm, entitlement), self.idle)
                + part(self.uncovered, lean(rules, vm, entitlement), self.lean)
                + part(self.beyond_reach, out_of_reach(rules, vm, entitlement), self.out_of_reach);
            let kept = keeps(vm, self.pressed);
            let wish = if gives > Pages::ZERO {
                kept.min(vm.held.saturating_sub(gives))
            } else if self.reclaiming() {
                kept
            } else {
                kept.saturating_add(part(self.surplus, lacking(vm), self.lacking))
            };
            let least = kept.max(entitlement);
            let lift = part(self.lifted, below_working_set(vm, least), self.below);
            let lifted = if lift > Pages::ZERO { least.saturating_add(lift) } else { entitlement };
            wish.max(lifted).min(vm.member.client.limit)
        };
        vms.iter().zip(entitled).map(target).collect()
    }

    /// Whether others give in its place because it uses what it has.
    fn spares(&self, rules: &Rules, vm: &Vm, entitlement: Pages) -> bool {
        let lean = lean(rules, vm, entitlement);
        self.shortage > Pages::ZERO && part(self.uncovered, lean, self.lean) < lean
    }
}

/// What a VM holds beyond both its entitlement and its working set, as far as it can be taken.
fn idle(rules: &Rules, vm: &Vm, entitlement: Pages) -> Pages {
    vm.held.saturating_sub(entitlement.max(vm.working_set())).min(vm.takeable(rules))
}

/// What a VM holds beyond its entitlement and within its working set, as far as it can be taken.
fn lean(rules: &Rules, vm: &Vm, entitlement: Pages) -> Pages {
    let left = vm.takeable(rules).saturating_sub(idle(rules, vm, entitlement));
    vm.held.min(vm.working_set()).saturating_sub(entitlement).min(left)
}

/// What a VM holds beyond its entitlement and nothing can take now: its balloon has no driver, or
/// its guest no memory to spare, and there is no room for its pages elsewhere. It is asked for
/// last, and given once something can take it.
fn out_of_reach(rules: &Rules, vm: &Vm, entitlement: Pages) -> Pages {
    vm.held.saturating_sub(entitlement).saturating_sub(vm.takeable(rules))
}

/// The target that a VM keeps as far as nothing is taken from it: under pressure no more than it
/// holds.
fn keeps(vm: &Vm, pressed: bool) -> Pages {
    if pressed { vm.target.min(vm.held) } else { vm.target }
}

/// What a VM whose balloon works lacks of its working set at `target`.
fn below_working_set(vm: &Vm, target: Pages) -> Pages {
    match vm.driver {
        Driver::Follows => vm.working_set().saturating_sub(target),
        Driver::Absent | Driver::Stuck => Pages::ZERO,
    }
}

/// By how much a VM's target may rise.
fn lacking(vm: &Vm) -> Pages {
    match vm.driver {
        Driver::Follows => vm.member.client.limit.saturating_sub(vm.target),
        Driver::Absent | Driver::Stuck => Pages::ZERO,
    }
}

/// What VMs lack, are entitled to, and cannot be given of what is free: it is paged out of others
/// at once.
struct Due {
    /// Free memory down to the low threshold is theirs: see [`Grants`](crate::Grants).
    due: Pages,
    /// What all can give of what they have above their targets.
    all: Pages,
}

impl Due {
    fn new(host: &Host, due: Pages, vms: &[Vm], targets: &[Pages]) -> Self {
        let there = host.free.saturating_sub(host.withheld).saturating_sub(host.thresholds.low);
        let all = vms.iter().zip(targets).map(|(vm, target)| can_give(vm, *target));
        Self { due: due.saturating_sub(there), all: all.fold(Pages::ZERO, Pages::saturating_add) }
    }

    /// The part of `vm`.
    fn of(&self, vm: &Vm, target: Pages) -> Pages {
        part(self.due, can_give(vm, target), self.all)
    }
}

/// What paging can take from a VM that is above `target`.
fn can_give(vm: &Vm, target: Pages) -> Pages {
    vm.held.saturating_sub(target).min(vm.pageable.total())
}

/// What is to be paged out of a VM that is above `target` and whose balloon brings `balloon` of
/// that.
fn paged(mechanisms: Mechanisms, vm: &Vm, target: Pages, balloon: Pages) -> Pages {
    let above = vm.held.saturating_sub(target);
    match mechanisms.paging {
        Paging::Off => Pages::ZERO,
        Paging::WhereNoBalloonCan => above.saturating_sub(balloon),
        Paging::Everybody => above,
    }
}

impl Reclaim {
    /// What `mechanisms` take from a VM that is above `target`, whose balloon brings `balloon` of
    /// that, and of which `paged` is to be paged out, as far as that is possible.
    fn new(mechanisms: Mechanisms, vm: &Vm, target: Pages, balloon: Pages, paged: Pages) -> Self {
        // A page that shrinks to half gives back as much as it then takes of the store.
        let compression = paged.min(vm.pageable.store);
        let swap = (paged - compression).min(vm.pageable.swap);
        // A VM of which nothing can be paged would stand still for ever: its balloon cannot run
        // either.
        let blocks = mechanisms.block && compression.saturating_add(swap) > Pages::ZERO;
        let block = if blocks { vm.held.saturating_sub(target) } else { Pages::ZERO };
        Self { balloon, compression, swap, block }
    }
}

/// What a VM that may have `most` can hold before it pages, and why it does.
fn level(vm: &Vm, most: Pages, reclaim: &Reclaim, for_others: bool) -> (Pages, Option<PagingCause>) {
    let paged = reclaim.compression.saturating_add(reclaim.swap);
    if paged > Pages::ZERO {
        let why = if for_others { PagingCause::Owed } else { PagingCause::AboveTarget };
        (vm.held.saturating_sub(paged), Some(why))
    } else if vm.held >= most {
        (vm.held, Some(PagingCause::AtLimit))
    } else if vm.waited {
        (vm.held, Some(PagingCause::Waited))
    } else {
        (most, None)
    }
}

fn pool_outcomes(
    pools: &PoolTree,
    division: &Division,
    vms: &[Vm],
    decisions: &[Decision],
) -> Vec<PoolOutcome> {
    let outcome = |id: PoolId| PoolOutcome {
        entitlement: division.pools[id.index()],
        target: Pages::ZERO,
        held: Pages::ZERO,
        level: division.levels[id.index()],
    };
    let mut outcomes: Vec<PoolOutcome> = pools.ids().map(outcome).collect();
    for (vm, decision) in vms.iter().zip(decisions) {
        outcomes[vm.member.pool.index()].add(decision.target, vm.held);
    }
    for (id, _, parent) in pools.leaves_first() {
        let below = outcomes[id.index()];
        outcomes[parent.index()].add(below.target, below.held);
    }
    outcomes
}

impl PoolOutcome {
    fn add(&mut self, target: Pages, held: Pages) {
        self.target = self.target.saturating_add(target);
        self.held = self.held.saturating_add(held);
    }
}

/// The share of `whole` that falls to a weight of `weight` out of `all`, at most `weight` itself;
/// rounded up.
fn part(whole: Pages, weight: Pages, all: Pages) -> Pages {
    if all == Pages::ZERO || weight == Pages::ZERO {
        return Pages::ZERO;
    }
    // 64 bits suffice for all but the largest hosts, and are divided several times as fast.
    if let Some(product) = whole.0.checked_mul(weight.0) {
        return Pages(product.div_ceil(all.0)).min(weight);
    }
    let share = (u128::from(whole.0) * u128::from(weight.0)).div_ceil(u128::from(all.0));
    Pages(u64::try_from(share).unwrap_or(u64::MAX)).min(weight)
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
