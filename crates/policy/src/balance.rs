//! The shortage of the host, and the memory of VMs that can cover it.
//!
//! Memory that VMs hold beyond their entitlements covers a shortage in this order: idle memory,
//! memory within working sets, memory that nothing can take now. `target.rs` argues the rules.

use plimsoll_units::Pages;

use crate::fraction::part;
use crate::host::Host;
use crate::mechanisms::Mechanisms;
use crate::rules::Rules;
use crate::state::State;
use crate::vm::{Driver, Vm};

/// The shortage and surplus of the host, with the sums over its VMs that divide them.
pub(crate) struct Balance {
    /// Free memory has to reach the high threshold again.
    pressed: bool,
    /// The memory that VMs wait for, within their entitlements.
    pub(crate) owed: Pages,
    /// The memory that VMs wait for or are taken to lack, within their entitlements.
    pub(crate) due: Pages,
    /// The memory that has to be reclaimed.
    pub(crate) shortage: Pages,
    /// The idle memory that is taken: for the shortage, and for working sets beyond free memory.
    from_idle: Pages,
    /// The part of the shortage that idle memory does not cover.
    uncovered: Pages,
    /// The part of the shortage that no memory covers that can be taken now.
    beyond_reach: Pages,
    /// Free memory beyond the amount that reclaiming aims for.
    surplus: Pages,
    /// The sum by which targets rise towards working sets.
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
    /// The balance of `host`, whose VMs are entitled to `entitled`.
    pub(crate) fn new(rules: &Rules, host: &Host, vms: &[Vm], entitled: &[Pages]) -> Self {
        let sum = |part: &dyn Fn(&Vm, Pages) -> Pages| {
            vms.iter().zip(entitled).fold(Pages::ZERO, |sum, (vm, e)| sum.saturating_add(part(vm, *e)))
        };
        let owed = sum(&|vm, e| vm.wanted.min(e.saturating_sub(vm.held)));
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
            // The host has memory: only the memory that is due has to come.
            let kept = host.thresholds.clear.saturating_add(host.withheld);
            kept.saturating_add(due).saturating_sub(host.free)
        } else {
            Pages::ZERO
        };
        // VMs below their working sets may have free memory above minFree, unless the host is short
        // of it, and the idle memory that the shortage leaves.
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

    /// Memory has to be reclaimed: see [`Outcome::reclaiming`](crate::Outcome::reclaiming).
    pub(crate) fn reclaiming(&self) -> bool {
        self.pressed || self.from_idle > Pages::ZERO
    }

    /// The mechanisms of a host in `state`: at least those of state soft while it reclaims.
    pub(crate) fn mechanisms(&self, state: State, strained: bool) -> Mechanisms {
        let state = if self.reclaiming() { state.max(State::Soft) } else { state };
        let mechanisms = Mechanisms::of(state);
        if strained { mechanisms.strained() } else { mechanisms }
    }

    /// The VMs' targets, without the limits of pools.
    pub(crate) fn targets(&self, rules: &Rules, vms: &[Vm], entitled: &[Pages]) -> Vec<Pages> {
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

    /// Whether other VMs give in place of `vm` because it uses its memory.
    pub(crate) fn spares(&self, rules: &Rules, vm: &Vm, entitlement: Pages) -> bool {
        let lean = lean(rules, vm, entitlement);
        self.shortage > Pages::ZERO && part(self.uncovered, lean, self.lean) < lean
    }
}

/// The idle memory of a VM: beyond both its entitlement and its working set, as far as it can be
/// taken.
fn idle(rules: &Rules, vm: &Vm, entitlement: Pages) -> Pages {
    vm.held.saturating_sub(entitlement.max(vm.working_set())).min(vm.takeable(rules))
}

/// The memory of a VM beyond its entitlement and within its working set, as far as it can be taken.
fn lean(rules: &Rules, vm: &Vm, entitlement: Pages) -> Pages {
    let left = vm.takeable(rules).saturating_sub(idle(rules, vm, entitlement));
    vm.held.min(vm.working_set()).saturating_sub(entitlement).min(left)
}

/// The memory of a VM beyond its entitlement that nothing can take now: its balloon has no driver,
/// or its guest no memory to spare, and there is no room for its pages elsewhere. The VM is asked
/// for it last, and gives it once a mechanism can take it.
fn out_of_reach(rules: &Rules, vm: &Vm, entitlement: Pages) -> Pages {
    vm.held.saturating_sub(entitlement).saturating_sub(vm.takeable(rules))
}

/// The target of a VM from which nothing is taken: its old target, under pressure no more than it
/// holds.
fn keeps(vm: &Vm, pressed: bool) -> Pages {
    if pressed { vm.target.min(vm.held) } else { vm.target }
}

/// The part of its working set that a VM lacks at `target`; 0 where its balloon does not work.
fn below_working_set(vm: &Vm, target: Pages) -> Pages {
    match vm.driver {
        Driver::Follows => vm.working_set().saturating_sub(target),
        Driver::Absent | Driver::Stuck => Pages::ZERO,
    }
}

/// The amount by which a VM's target may rise.
fn lacking(vm: &Vm) -> Pages {
    match vm.driver {
        Driver::Follows => vm.member.client.limit.saturating_sub(vm.target),
        Driver::Absent | Driver::Stuck => Pages::ZERO,
    }
}
