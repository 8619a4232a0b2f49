use std::time::Duration;

use plimsoll_policy::{
    Client, Decision, Driver, Host, Member, PoolId, PoolTree, Rules, Vm as PolicyVm, decide,
};
use plimsoll_protocol::VmName;
use plimsoll_protocol::api::BalloonHealth;
use plimsoll_protocol::control::{GuestFacts, ToVmm};
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_units::{Bytes, Pages};

use super::run::{Phase, Run};
use super::{Core, Effect, KernelAccount, RunId, limit, overhead, reservation, size};
use crate::liveness::Sight;

/// How often memory is divided anew when nothing happens: the pace at which balloons were told their targets
/// (Waldspurger 2002, section 3.2) and at which VMMs report.
pub(crate) const PERIOD: Duration = Duration::from_secs(1);
/// How soon it is divided anew when a VM waits. Sooner, and a crowd of waiting VMs would keep the daemon busy with
/// arithmetic; later, and a guest stands still for longer than a balloon needs to begin.
pub(crate) const SHORTEST: Duration = Duration::from_millis(100);
/// Balloon targets that differ by less are not worth waking a driver for.
const BALLOON_STEP: Pages = Pages(256);
/// A VM whose process holds this much more than it was granted is reported. The kernel counts resident pages with an
/// error of up to 64 pages a thread, and the VMM's own memory is not all used at once.
const EXCESS: Bytes = Bytes::mib(4);

/// The control loop.
impl Core {
    /// Divides memory anew: activity, entitlements, targets, balloons; then gives to who waits.
    pub(super) fn control(&mut self) {
        let elapsed = self.clock.now.saturating_duration_since(self.last_control);
        self.last_control = self.clock.now;
        self.urgent = false;
        self.observe_activity(elapsed);
        self.divide(elapsed);
        self.observe_balloons();
        self.give_all();
        self.reward_patience();
        self.end_the_doomed();
        self.answer_the_late();
    }

    fn observe_activity(&mut self, elapsed: Duration) {
        for run in self.vms.values_mut().filter_map(|vm| vm.run.as_deref_mut()) {
            // What it holds more than before, and what it gave back meanwhile, was touched.
            let held = run.facts.held;
            let touched = held.saturating_add(run.returned).saturating_sub(run.held_before);
            run.activity.observe(elapsed, touched, run.wanted, held);
            (run.held_before, run.returned) = (held, Pages::ZERO);
        }
    }

    fn divide(&mut self, elapsed: Duration) {
        let parties: Vec<(VmName, PolicyVm)> = self
            .running()
            .filter(|(_, run)| run.takes_part())
            .map(|(definition, run)| (definition.name.clone(), self.party(definition, run)))
            .collect();
        // Who takes no part keeps what it has until its process is gone; who is about to start will take its overhead.
        let lost: Pages = self
            .running()
            .map(|(definition, run)| match run.phase {
                Phase::Queued => overhead(definition),
                _ if run.takes_part() => Pages::ZERO,
                _ => self.ledger.account(run.id).grant,
            })
            .sum();
        let host = Host {
            for_guests: self.ledger.budget().saturating_sub(self.ledger.overhead()).saturating_sub(lost),
            free: self.ledger.free(),
            thresholds: self.settings.thresholds,
            state: self.states.current(),
            elapsed,
        };
        let rules = Rules { tax: self.settings.tax, ..Rules::default() };
        let vms: Vec<PolicyVm> = parties.iter().map(|(_, vm)| *vm).collect();
        let outcome = decide(&rules, &host, &PoolTree::default(), &vms);
        for ((name, vm), decision) in parties.iter().zip(outcome.vms) {
            self.steer(name, vm, decision);
        }
    }

    /// A VM as policy sees it. Its grant stands for what it holds: a VMM that claims to hold less keeps the grant all the
    /// same, and honest ones return what they do not use.
    fn party(&self, definition: &VmDefinition, run: &Run) -> PolicyVm {
        let grant = self.ledger.account(run.id).grant;
        let limit = limit(definition);
        let asks = run.facts.guest.map_or(Pages::ZERO, |g| lacks(&g, definition.size));
        // A guest that asks uses what it has: its balloon must give way before its own OOM killer runs. One that lies
        // escapes the tax on idle memory, and gets no more than its shares are worth.
        let using = if asks == Pages::ZERO { Pages::ZERO } else { grant.saturating_add(asks) };
        let client = Client {
            reservation: reservation(definition),
            limit,
            shares: definition.shares.resolve(definition.size),
            active: run.activity.active().max(using),
        };
        let wanted = match run.phase {
            Phase::Queued => reservation(definition) + overhead(definition),
            _ => run.wanted.max(asks).min(limit.saturating_sub(grant)),
        };
        PolicyVm {
            member: Member { client, tax: None, pool: PoolId::ROOT },
            size: size(definition),
            held: grant,
            wanted,
            target: run.target,
            balloon: run.balloon,
            driver: match run.liveness.health() {
                BalloonHealth::Absent => Driver::Absent,
                BalloonHealth::Following => Driver::Follows,
                BalloonHealth::Stuck => Driver::Stuck,
            },
            compressed: Pages::ZERO,
        }
    }

    fn steer(&mut self, name: &VmName, before: &PolicyVm, decision: Decision) {
        let Some(run) = self.vms.get_mut(name).and_then(|vm| vm.run.as_deref_mut()) else {
            return;
        };
        (run.entitlement, run.target) = (decision.entitlement, decision.target);
        let edge = decision.balloon == Pages::ZERO || run.balloon == Pages::ZERO;
        let moved = decision.balloon.0.abs_diff(run.balloon.0) >= BALLOON_STEP.0;
        if decision.balloon == run.balloon || !(moved || edge) {
            return;
        }
        run.balloon = decision.balloon;
        if run.is_without_process() {
            // It is told when it is there.
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

    fn observe_balloons(&mut self) {
        let now = self.clock.now;
        let mut changes = Vec::new();
        for (name, vm) in &mut self.vms {
            let Some(run) = vm.run.as_deref_mut().filter(|run| run.takes_part()) else { continue };
            let before = run.liveness.health();
            let grant = self.ledger.account(run.id).grant;
            // A balloon counts as far as what it freed has come back. A VMM may keep a chunk for the next fault.
            let came_back = size(&vm.record.definition).saturating_sub(grant) + Pages::CHUNK;
            let sight = Sight {
                driver: run.facts.balloon_driver,
                above_target: grant > run.target,
                waits: run.wanted > Pages::ZERO,
                ballooned: run.facts.ballooned.min(came_back),
                wanted: run.balloon,
            };
            let health = run.liveness.observe(now, sight);
            if health == before {
                continue;
            }
            changes.push((
                name.clone(),
                match health {
                    BalloonHealth::Absent => "the balloon driver is gone".to_owned(),
                    BalloonHealth::Following if before == BalloonHealth::Stuck => {
                        "the balloon follows its target again".to_owned()
                    }
                    BalloonHealth::Following => "the balloon driver is there".to_owned(),
                    BalloonHealth::Stuck => format!(
                        "the balloon is stuck at {} of {}: the VM gets no more than it is entitled to",
                        sight.ballooned.bytes(),
                        run.balloon.bytes()
                    ),
                },
            ));
        }
        for (name, text) in changes {
            self.event(Some(&name), text);
        }
    }

    /// Takes the kernel's account of all VMs.
    pub(super) fn kernel(&mut self, accounts: &[(RunId, KernelAccount)]) {
        for &(id, account) in accounts {
            let ledger = self.ledger.account(id);
            let most = (ledger.grant + ledger.overhead).bytes() + EXCESS;
            let Some(name) = self.runs.get(&id).cloned() else { continue };
            let Some(run) = self.run_mut(id) else { continue };
            run.kernel = account;
            let excess = account.process > most;
            if excess && !run.excess {
                let text =
                    format!("its process holds {}, which is more than the {most} it may", account.process);
                run.excess = true;
                self.event(Some(&name), text);
            } else if !excess {
                run.excess = false;
            }
        }
        self.peak_kernel = self.peak_kernel.max(self.running().map(|(_, run)| run.kernel.ram).sum());
    }
}

/// What a guest lacks by its own account: memory is asked for where less than a sixteenth is available, up to an eighth.
/// Guests that ask for nothing are not thereby idle.
fn lacks(guest: &GuestFacts, size: Bytes) -> Pages {
    let total = guest.total.min(size);
    if guest.total == Bytes::ZERO || guest.available.0 >= total.0 / 16 {
        return Pages::ZERO;
    }
    Pages::floor(Bytes(total.0 / 8).saturating_sub(guest.available))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_may_ask_for_memory_but_for_no_more_than_its_size_explains() {
        let guest = |total, available| GuestFacts {
            total: Bytes::mib(total),
            available: Bytes::mib(available),
            ..GuestFacts::default()
        };
        let size = Bytes::mib(256);
        assert_eq!(lacks(&guest(256, 100), size), Pages::ZERO);
        assert_eq!(lacks(&guest(256, 8), size), Pages::floor(Bytes::mib(24)));
        assert_eq!(lacks(&guest(1 << 40, 0), size), Pages::floor(Bytes::mib(32)));
        assert_eq!(lacks(&guest(0, 0), size), Pages::ZERO);
    }
}
