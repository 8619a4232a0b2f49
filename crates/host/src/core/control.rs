//! The control loop: each second, and sooner when a VM waits, memory is divided anew.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_protocol::definition::VmDefinition;
use plimsoll_protocol::sharing::WINDOW;
use plimsoll_protocol::status::BalloonHealth;
use plimsoll_units::{Bytes, Pages};

use super::run::{Phase, Run};
use super::{Core, ProcessMemory, RunId, size};
use crate::history::Reading;
use crate::liveness::Sight;

impl Core {
    /// Divides memory anew (entitlements, targets, balloons), then serves VMs that wait.
    pub(super) fn control(&mut self) {
        let elapsed = self.clock.now.saturating_duration_since(self.last_control);
        self.last_control = self.clock.now;
        self.states.pass(elapsed);
        (self.urgent, self.pressing) = (false, false);
        self.serve();
        self.watch_heartbeats(elapsed);
        self.tidy_domains();
        self.leave_closed_domains();
        self.end_served_waits();
        self.observe_needs(elapsed);
        self.divide(elapsed);
        self.observe_balloons();
        self.set_scan_budgets();
        self.give_all();
        self.note_long_waits();
        self.record();
        self.end_the_overdue();
        self.answer_the_late();
        self.refuse_late_growths();
    }

    /// Records what VMs use and have, for the history.
    fn record(&mut self) {
        if !self.recorder.is_due(self.clock) {
            return;
        }
        let reading = |(definition, run): (&VmDefinition, &Run)| Reading {
            vm: definition.name.clone(),
            active: self.active(run),
            held: run.facts.held,
            entitlement: run.decided.entitlement,
            ballooned: run.facts.ballooned,
            shared: self.references(run.id),
            zero: run.facts.zero,
            saved: self.references(run.id).saturating_sub(self.part(run.id)).saturating_add(run.facts.zero),
            compressed: run.facts.compressed,
            swapped: run.facts.swapped,
            swap_rates: (Pages(run.rates.swapped_out), Pages(run.rates.swapped_in)),
            stall: run.stall.since_sample(),
        };
        let readings = self.running().map(reading).collect();
        self.recorder.push(self.clock, readings);
        self.sample_stalls();
    }

    fn observe_balloons(&mut self) {
        let now = self.clock.now;
        let mut changes = Vec::new();
        let parts: BTreeMap<RunId, Pages> =
            self.running().map(|(_, run)| (run.id, self.part(run.id))).collect();
        for vm in self.vms.values() {
            let run = vm.run.and_then(|run| self.runs.get_mut(&run));
            let Some(run) = run.filter(|run| run.takes_part()) else { continue };
            let before = run.liveness.health();
            let grant = self.ledger.account(run.id).grant;
            // A balloon counts as far as what it freed has come back. A VMM may keep a chunk for
            // the next fault.
            let came_back = size(&vm.record.definition).saturating_sub(grant) + Pages::CHUNK;
            let sight = Sight {
                driver: run.facts.balloon_driver,
                above_target: grant + parts.get(&run.id).copied().unwrap_or_default() > run.decided.target,
                waits: run.wanted > Pages::ZERO,
                ballooned: run.facts.ballooned.min(came_back),
                wanted: run.balloon,
            };
            let health = run.liveness.observe(now, sight);
            if health == before {
                continue;
            }
            changes.push((
                run.id,
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
        for (id, text) in changes {
            self.told_by(id, text);
        }
    }

    /// The most memory of its own that the process of a run may hold.
    pub(crate) fn most_held(&self, id: RunId) -> Bytes {
        let account = self.ledger.account(id);
        (account.grant + account.overhead).bytes() + EXCESS + miscounted(self.processors.number)
    }

    /// Takes the kernel's account of the processes of VMs. Tells of processes that hold more than
    /// they may, and ends them if that lasts.
    pub(super) fn processes(&mut self, processes: &[(RunId, ProcessMemory)]) {
        for &(id, process) in processes {
            let (most, frames) = (self.most_held(id), self.mapped(id));
            let Some(name) = self.name_of(id) else { continue };
            let Some(run) = self.run_mut(id) else { continue };
            run.kernel.process = process;
            if let Phase::Unreachable(_) = run.phase {
                self.charge_unreachable(id);
                continue;
            }
            if run.sharing.recovering {
                continue;
            }
            // Frames that it maps are no memory of its own.
            let holds = process.anonymous.saturating_add(process.shared.saturating_sub(frames));
            if holds <= most {
                run.excess = 0;
                continue;
            }
            run.excess = run.excess.saturating_add(1);
            let text = format!("its process holds {holds}, which is more than the {most} it may");
            match run.excess {
                1 => self.event(Some(&name), text),
                LOOKS.. => self.breach(id, &format!("{text}, for {LOOKS} s")),
                _ => {}
            }
        }
    }

    /// The most shared memory that the process of a run may map: each frame at its place in guest
    /// memory, all frames where they are compared, and the window.
    fn mapped(&self, id: RunId) -> Bytes {
        let domains = self.run(id).into_iter().flat_map(|run| run.sharing.part.memberships());
        let frames: Pages = domains.map(|membership| self.mirror.frames_of(membership.id)).sum();
        let untaken = self.run(id).map_or(Pages::ZERO, |run| run.sharing.untaken);
        (self.references(id) + frames + untaken + Pages(WINDOW as u64)).bytes()
    }

    /// Takes the kernel's account of the memory of some guests.
    pub(super) fn guests(&mut self, guests: &[(RunId, Bytes)]) {
        for &(id, ram) in guests {
            let Some(run) = self.run_mut(id) else { continue };
            run.kernel.ram = ram;
            if let Phase::Unreachable(_) = run.phase {
                self.charge_unreachable(id);
            }
        }
        self.peak_kernel = self.peak_kernel.max(self.running().map(|(_, run)| run.kernel.ram).sum());
    }
}

/// How often memory is divided anew when nothing happens: the pace at which balloons were told
/// their targets (Waldspurger 2002, section 3.2) and at which VMMs report.
pub(crate) const PERIOD: Duration = Duration::from_secs(1);
/// How soon it is divided anew when a VM waits. Sooner, and a crowd of waiting VMs would keep the
/// daemon busy with arithmetic; later, and a guest stands still for longer than a balloon needs to
/// begin.
pub(crate) const SHORTEST: Duration = Duration::from_millis(100);
/// How soon, when a VM begins to wait for what is not free: others that have more than they are
/// entitled to are told at once to page it out. Sooner, and a guest that touches new memory page by
/// page would keep the daemon busy; later, and a burst of such faults adds up to a pause that its
/// users notice.
pub(crate) const AT_ONCE: Duration = Duration::from_millis(10);
/// Report a VM whose process exceeds its grant by this much plus the kernel's error
/// ([`miscounted`]).
const EXCESS: Bytes = Bytes::mib(4);
/// How many looks in a row, one a second, may find that. A late return has come by then. More, and
/// a VMM that its guest has taken over keeps memory that others were promised for longer.
const LOOKS: u8 = 8;

/// By how much the kernel may count too many resident pages of a process, as `/proc/PID/status`
/// shows them. Since Linux 6.2 each processor keeps up to `max(32, 2 * processors)` pages of each
/// kind to itself (`percpu_counter_batch`), before that each thread up to 64; there are two kinds
/// that count here.
fn miscounted(processors: u32) -> Bytes {
    let processors = u64::from(processors.max(1));
    Pages(2 * processors * (2 * processors).max(64)).bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_counts_less_exactly_the_more_processors_there_are() {
        assert_eq!(miscounted(0), Bytes(512 << 10));
        assert_eq!(miscounted(2), Bytes::mib(1));
        assert_eq!(miscounted(64), Bytes::mib(64));
    }
}
