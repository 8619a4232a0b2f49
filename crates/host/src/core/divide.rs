use std::time::Duration;

use plimsoll_policy::{
    Account, Client, Decision, Driver, Estimate, Host, Member, Outcome, Pageable, PoolId, Rules, Signs, Tax,
    Vm as PolicyVm, decide,
};
use plimsoll_protocol::VmName;
use plimsoll_protocol::control::{GuestFacts, ToVmm};
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_protocol::status::BalloonHealth;
use plimsoll_units::Pages;

use super::run::{Decided, Paging, Phase, Run};
use super::{Core, Effect, RunId, limit, overhead, reservation, size};

/// Balloon targets that differ by less are not worth waking a driver for.
pub(super) const BALLOON_STEP: Pages = Pages(256);

/// A question to policy, and its answer.
#[derive(Clone, Debug)]
pub(super) struct Divided {
    pub(super) rules: Rules,
    pub(super) host: Host,
    /// In the order of their names.
    pub(super) names: Vec<VmName>,
    pub(super) vms: Vec<PolicyVm>,
    pub(super) outcome: Outcome,
}

/// Dividing memory: from what is known to entitlements, targets and balloons.
impl Core {
    /// Divides memory anew and tells the balloons. `elapsed` is the time since the last division;
    /// balloons may have grown in it.
    pub(super) fn divide(&mut self, elapsed: Duration) -> Divided {
        let (names, vms): (Vec<VmName>, Vec<PolicyVm>) = self
            .running()
            .filter(|(_, run)| run.takes_part())
            .map(|(definition, run)| (definition.name.clone(), self.party(definition, run)))
            .unzip();
        let (rules, host) = (self.settings.rules, self.situation(elapsed));
        let outcome = decide(&rules, &host, self.pools.tree(), &vms);
        for ((name, vm), decision) in names.iter().zip(&vms).zip(&outcome.vms) {
            self.steer(name, vm, decision);
        }
        Divided { rules, host, names, vms, outcome }
    }

    fn situation(&self, elapsed: Duration) -> Host {
        // A VM that takes no part keeps its memory until its process is gone; a queued VM will take
        // its overhead.
        let lost: Pages = self
            .running()
            .map(|(definition, run)| match run.phase {
                Phase::Queued(_) => overhead(definition),
                _ if run.takes_part() => Pages::ZERO,
                _ => self.charged(run.id),
            })
            .sum();
        Host {
            for_guests: self.ledger.sustained().saturating_sub(self.ledger.overhead()).saturating_sub(lost),
            free: self.ledger.free(),
            withheld: self.round().grants.withheld(),
            thresholds: self.settings.thresholds,
            state: self.states.current(),
            strained: self.states.is_strained(),
            elapsed,
        }
    }

    /// A VM as policy sees it. Its grant and its part of the frames of its sharing domain stand for
    /// what it holds: a VMM that claims to hold less keeps the grant all the same, and honest ones
    /// return what they do not use. So the VMs that share a frame pay for it in equal parts (see
    /// [`charge`](fn@plimsoll_policy::charge)), and what sharing saves makes room within an
    /// entitlement, which it does not change.
    pub(super) fn party(&self, definition: &VmDefinition, run: &Run) -> PolicyVm {
        let held = self.charged(run.id);
        let limit = limit(definition);
        let client = Client {
            reservation: reservation(definition),
            limit,
            shares: definition.shares.resolve(definition.size),
            active: self.active(run),
        };
        let wanted = match run.phase {
            Phase::Queued(_) => reservation(definition) + overhead(definition),
            _ => run.wanted.min(limit.saturating_sub(held)),
        };
        // Every VM's pool exists, and policy accepts every tax.
        let pool = self.pools.id(&definition.pool).unwrap_or(PoolId::ROOT);
        let tax = definition.tax.and_then(|tax| Tax::new(tax.rate()));
        PolicyVm {
            member: Member { client, tax, pool },
            size: size(definition).saturating_sub(self.free_of_charge(definition, run)),
            held,
            wanted,
            target: run.decided.target,
            balloon: run.balloon,
            ballooned: run.facts.ballooned,
            driver: run.driver(),
            lacks: run.need.missing(),
            spare: run.spare.balloon(),
            hollow: run.spare.hollow(size(definition), held, run.facts.ballooned),
            inflation: run.inflation,
            pageable: self.pageable(definition, run),
            waited: run.waited,
        }
    }

    /// What a VM's guest has in memory without being charged for it: shared pages beyond its part
    /// of the frames, and zero pages. That much need not be in its balloon for the VM to come to
    /// its target. The VMM's number of zero pages counts as far as grant, references and balloon
    /// leave room for it, so that a lie cannot make the balloon too small.
    fn free_of_charge(&self, definition: &VmDefinition, run: &Run) -> Pages {
        let (grant, references) = (self.ledger.account(run.id).grant, self.references(run.id));
        let others = size(definition).saturating_sub(grant).saturating_sub(run.facts.ballooned);
        let unpaid = references.saturating_sub(self.part(run.id)).saturating_add(run.facts.zero);
        unpaid.min(others)
    }

    /// What a VM is taken to use actively: what its samples show, or what it has shown to need.
    pub(super) fn active(&self, run: &Run) -> Pages {
        run.need.active(self.estimated(run))
    }

    /// What samples show that a VM uses of its charge. Samples are of pages of its own; shared
    /// pages are taken to be used like those.
    fn estimated(&self, run: &Run) -> Pages {
        let own = run.estimate().active();
        let (held, part) = (u128::from(run.facts.held.0), u128::from(self.part(run.id).0));
        let shared = u128::from(own.0.min(run.facts.held.0)) * part / held.max(1);
        own.saturating_add(Pages(u64::try_from(shared).unwrap_or(u64::MAX)))
    }

    /// Takes what `elapsed` has shown of what VMs need, and of what their guests can spare.
    pub(super) fn observe_needs(&mut self, elapsed: Duration) {
        let signs = |(definition, run): (&VmDefinition, &Run)| {
            let since = run.since_division;
            let signs = Signs {
                estimate: self.estimated(run),
                used: run.spare.used(size(definition)),
                committed: run.spare.committed(size(definition)),
                held: self.charged(run.id),
                most: limit(definition),
                waits: run.wanted,
                given: since.given,
                replaced: since.replaced,
                stall: run.stall.lately(),
                inflates: run.inflates(),
                executed: since.executed,
                starved: run.spare.is_short(),
            };
            (run.id, size(definition), signs)
        };
        let signs: Vec<(RunId, Pages, Signs)> = self.running().map(signs).collect();
        for (id, size, signs) in signs {
            let Some(run) = self.run_mut(id) else { continue };
            let since = std::mem::take(&mut run.since_division);
            run.spare.observe(elapsed, run.facts.guest.as_ref().map(account).as_ref(), since.took_back);
            run.inflation.observe(elapsed, size, run.balloon, run.facts.ballooned);
            run.need.observe(elapsed, &signs);
        }
    }

    /// What can be paged out of a VM, as far as it is known.
    pub(super) fn pageable(&self, definition: &VmDefinition, run: &Run) -> Pageable {
        if run.facts.paging_stuck {
            // The VMM tries again by itself, and reports it.
            return Pageable::default();
        }
        let swap = if run.facts.swap_failed { Pages::ZERO } else { run.swap };
        Pageable {
            store: self.settings.rules.store(size(definition)).saturating_sub(run.facts.store),
            swap: swap.saturating_sub(run.facts.swapped),
        }
    }

    /// Tells a VMM its paging level, if that has changed by more than a little, or if the VM
    /// exceeds its limit.
    fn steer_paging(&mut self, name: &VmName, before: &PolicyVm, decision: &Decision) {
        let step = BALLOON_STEP.0;
        // A VMM counts its own pages only.
        let part = self.run_of(name).map_or(Pages::ZERO, |run| self.part(run.id));
        let own = decision.level.saturating_sub(part);
        let Some(run) = self.run_of_mut(name) else { return };
        let began = decision.pages.is_some() != run.paging_cause.is_some();
        run.paging_cause = decision.pages;
        let next = Paging { level: Some(own), block: decision.reclaim.block > Pages::ZERO };
        // With a level above its grant, even by a page, a VM that waits would wait on.
        let moved = run.paging.level.is_none_or(|level| {
            let too_high = (exceeds_limit(before, decision) || run.waits() > Pages::ZERO) && level > own;
            too_high || level.0.abs_diff(own.0) >= step
        });
        let at_rest = decision.pages.is_none() && run.paging.level != next.level;
        if run.is_without_process()
            || !(moved || at_rest || began || next.block != run.paging.block)
            || next == run.paging
        {
            return;
        }
        run.paging = next;
        let id = run.id;
        let (level, why) = (own.bytes(), decision.pages);
        tracing::debug!(vm = %name, %level, ?why, block = next.block, "paging level");
        self.effect(Effect::Send(id, ToVmm::Paging { level: next.level, block: next.block }));
    }

    fn steer(&mut self, name: &VmName, before: &PolicyVm, decision: &Decision) {
        self.steer_paging(name, before, decision);
        let Some(run) = self.run_of_mut(name) else {
            return;
        };
        let &Decision { entitlement, lent, worth, target, most, .. } = decision;
        run.decided = Decided { entitlement, lent, worth, target, most };
        let edge = decision.balloon == Pages::ZERO || run.balloon == Pages::ZERO;
        let too_small = exceeds_limit(before, decision) && decision.balloon > run.balloon;
        let moved = too_small || decision.balloon.0.abs_diff(run.balloon.0) >= BALLOON_STEP.0;
        if decision.balloon == run.balloon || !(moved || edge) {
            return;
        }
        run.balloon = decision.balloon;
        if run.is_without_process() {
            // Its VMM is told when it runs.
            return;
        }
        let id = run.id;
        tracing::debug!(
            vm = %name, grant = %before.held.bytes(), waits = %before.wanted.bytes(), active = %before.member.client.active.bytes(),
            entitlement = %decision.entitlement.bytes(), target = %decision.target.bytes(),
            "balloon target {}", decision.balloon.bytes(),
        );
        self.effect(Effect::Send(id, ToVmm::BalloonTarget(decision.balloon)));
    }
}

impl Run {
    /// What it is entitled to, and what it is lent.
    pub(super) fn claim(&self) -> Pages {
        self.decided.entitlement.saturating_add(self.decided.lent)
    }

    /// Whether its balloon works.
    pub(super) fn driver(&self) -> Driver {
        match self.liveness.health() {
            BalloonHealth::Absent => Driver::Absent,
            BalloonHealth::Following => Driver::Follows,
            BalloonHealth::Stuck => Driver::Stuck,
        }
    }

    /// Whether its balloon has still to grow.
    pub(super) fn inflates(&self) -> bool {
        self.driver() == Driver::Follows && self.facts.ballooned < self.balloon
    }

    /// What sampling shows.
    pub(super) fn estimate(&self) -> Estimate {
        self.usage.estimate(&self.facts.sampling.now, self.facts.held)
    }
}

/// Whether a VM holds more than its limit. A limit holds to the page: a last step too small to be
/// told would leave the VM above it for ever.
fn exceeds_limit(before: &PolicyVm, decision: &Decision) -> bool {
    before.held > decision.most
}

/// A guest's statistics as policy takes them.
fn account(guest: &GuestFacts) -> Account {
    Account {
        total: Pages::floor(guest.total),
        available: Pages::floor(guest.available),
        free: Pages::floor(guest.free),
        ballooned: guest.ballooned,
        stalls: guest.alloc_stalls.unwrap_or(0).saturating_add(guest.oom_kills),
    }
}
