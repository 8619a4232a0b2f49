use plimsoll_policy::{StallMeter, Stalls, host_averages};
use plimsoll_protocol::VmName;
use plimsoll_protocol::control::Facts;
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_protocol::stall::{StallCause, StallStatus, Standstill};
use plimsoll_units::Pages;

use super::run::Run;
use super::stall_account::{Stretch, stall_time};
use super::{Core, RunId, limit};

impl Core {
    /// Takes a VMM's report of stalls. Events say when its VM begins to stand still, and when it
    /// runs again.
    pub(super) fn observe_stall(&mut self, id: RunId, name: &VmName, facts: &Facts) {
        let clock = self.clock;
        let Some(run) = self.run_mut(id) else { return };
        let before = run.stall.still;
        let (some, full) = run.stall.observe(facts, clock);
        let (still, total) = (run.stall.still, run.stall.stalls.full().total());
        self.stalled.0 += some;
        self.stalled.1 += full;
        match (before, still) {
            (None, Some(_)) => {
                let vm = self.vm(name).and_then(|vm| Some((&vm.record.definition, self.run(id)?)));
                if let Some(cause) = vm.map(|(definition, run)| self.stall_cause(definition, run)) {
                    self.told_by(id, cause.to_string());
                }
            }
            (Some(Stretch { full, .. }), None) => {
                let seconds = total.saturating_sub(full).as_secs();
                self.told_by(id, format!("the guest is no longer stalled: it stood still for {seconds} s"));
            }
            _ => {}
        }
    }

    /// The stalls counted so far are in the history.
    pub(super) fn sample_stalls(&mut self) {
        self.runs.values_mut().for_each(|run| run.stall.sample());
    }

    /// Whether a VM stands still, since when, and why.
    pub(super) fn standstill(&self, definition: &VmDefinition, run: &Run) -> Option<Standstill> {
        run.stall.still().map(|since| Standstill { since, cause: self.stall_cause(definition, run) })
    }

    fn stall_cause(&self, definition: &VmDefinition, run: &Run) -> StallCause {
        let (has, limit) = (self.charged(run.id), limit(definition));
        if run.facts.blocked {
            StallCause::Held
        } else if run.waits() == Pages::ZERO {
            StallCause::Swap
        } else if run.beyond > Pages::ZERO || has >= limit {
            if run.can_page(self.settings.rules.largest_store) {
                StallCause::PagesAtLimit(limit.bytes())
            } else {
                StallCause::AtLimit(limit.bytes())
            }
        } else if has >= run.decided.most {
            StallCause::AtPoolLimit(run.decided.most.bytes())
        } else if has < run.claim() {
            StallCause::Owed
        } else {
            StallCause::BeyondEntitlement
        }
    }

    /// The host's stalls: see [`StallStatus`].
    pub(super) fn host_stall(&self) -> StallStatus {
        let averages = |kind: fn(&Stalls) -> StallMeter| {
            host_averages(self.running().map(|(_, run)| kind(&run.stall.stalls)))
        };
        StallStatus {
            some: stall_time(averages(Stalls::some), self.stalled.0),
            full: stall_time(averages(Stalls::full), self.stalled.1),
        }
    }

    /// How many VMs stand still.
    pub(super) fn standing_still(&self) -> u64 {
        self.running().filter(|(_, run)| run.stall.still().is_some()).count() as u64
    }
}
