//! The work of each VM's mechanisms: targets, balloons and amounts.
//!
//! **Entitlements** divide the memory for guests less minFree. Where reservations exceed that,
//! their sum is divided: admission promises all machine memory, and a promise comes before minFree.
//!
//! **Lending.** The parts of entitlements that VMs do not use are lent to VMs that use or lack more
//! than theirs (`lending.rs`). Below, "entitlement" includes the memory that is lent to the VM.
//!
//! **Targets** never lie below entitlements. As long as the host has memory they only rise, by the
//! free memory beyond the high threshold. Once memory has to be reclaimed ([`Outcome::reclaiming`])
//! VMs above their entitlements give. In state soft and below they give until free memory reaches
//! the high threshold (Waldspurger 2002, section 6.3: targets aim above high in every state). In
//! better states they give as much as others lack of their entitlements. If they gave more in those
//! states, targets would fall and rise again with every fault that waits for a moment.
//!
//! **Working sets.** The memory that a VM holds beyond both its entitlement and its working set is
//! idle. Idle memory is taken first, from all VMs in proportion. Only where it does not suffice do
//! VMs give below their working sets, again in proportion. The target of a VM that was idle may be
//! below the working set that it has now. Such a target rises to the working set, out of free
//! memory above minFree and then out of idle memory. So no balloon that works keeps a VM below its
//! working set while another VM holds idle memory. No VM gives below its entitlement, idle or not:
//! the tax has decided the price of idle memory when it set the entitlement. If idle memory within
//! entitlements were taken too, a tax of 0 would lose its meaning.
//!
//! **A VM that does not follow** (without a driver, or with a stuck one) has the same target, and
//! the next mechanism steers to it. The VM gains nothing by that: its target does not rise above
//! its entitlement until it follows again.
//!
//! **Owed memory** does not wait for balloons. The memory that VMs lack of their entitlements and
//! that is not free is compressed and swapped out at once, of VMs above their targets, in
//! proportion, in every state.
//!
//! **A VM that is owed nothing** and needs more pages out its own pages: at the most that it may
//! have, and after it has waited in vain for a control period ([`Decision::level`]).
//!
//! **A pool's limit** holds for the sum of its VMs' targets, in every state: the parts beyond their
//! entitlements are scaled down to fit. Memory that one of them leaves of its entitlement and
//! another is lent counts once, for the borrower: a limit comes before the lender's entitlement.

use plimsoll_units::Pages;

use crate::balance::Balance;
use crate::balloon::{Balloon, Goal};
use crate::decision::{Decision, Outcome, PagingCause, PoolOutcome, Reclaim};
use crate::division::{Division, divide_reserving};
use crate::host::Host;
use crate::lending::Lending;
use crate::member::Member;
use crate::paging::{Due, paged};
use crate::pool::{PoolId, PoolTree};
use crate::pool_limits::PoolLimits;
use crate::rules::Rules;
use crate::state::State;
use crate::vm::Vm;

/// Returns entitlements, targets, balloons and the amounts of each mechanism, for all VMs in the
/// order given.
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
    let mechanisms = balance.mechanisms(host.state, host.strained);
    let target = |i: usize| limits.within(vms[i].member.pool, standing[i], wishes[i]);
    let targets: Vec<Pages> = (0..vms.len()).map(target).collect();
    let due = Due::new(host, balance.due, vms, &targets);
    let decision = |i: usize| {
        let (vm, claim, target) = (&vms[i], claims[i], targets[i]);
        let most = if limits.bind(vm.member.pool) { target } else { vm.member.client.limit };
        let spared = target <= vm.working_set() && balance.spares(rules, vm, claim);
        // A VM above the most that it may have gives, however much memory the host has.
        let mechanisms = if vm.held > most {
            balance.mechanisms(host.state.max(State::Soft), host.strained)
        } else {
            mechanisms
        };
        let goal = Goal { target, most, takes: mechanisms.balloon, spared };
        let balloon = Balloon::new(rules, host.elapsed, vm, &goal);
        let paged = paged(mechanisms, vm, target, balloon.brings);
        let (paged, for_others) = (paged.max(due.of(vm, target)), due.of(vm, target) > paged);
        let reclaim = Reclaim::new(mechanisms, vm, target, balloon.brings, paged);
        let (level, pages) = level(vm, most, &reclaim, for_others);
        let pays = vm.member.pays(rules.tax, division.vms[i]);
        Decision {
            entitlement: division.vms[i],
            lent: claim - division.vms[i],
            cause: division.causes[i],
            worth: worth(division.vms[i], pays, division.levels[vm.member.pool.index()]),
            pays,
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

/// The memory that the shares of a VM entitled to `entitlement` are worth. It pays `pays` a share
/// for that, and VMs that no bound holds pay `level`.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn worth(entitlement: Pages, pays: f64, level: f64) -> Pages {
    if pays > 0.0 && pays < level { Pages((entitlement.0 as f64 * level / pays) as u64) } else { entitlement }
}

/// The memory that a VM with at most `most` can hold before it pages, and why it pages.
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

#[cfg(test)]
mod tests;
