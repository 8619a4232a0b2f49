use std::time::{Duration, Instant};

use jiff::Timestamp;
use plimsoll_policy::{StallMeter, Stalls, host_averages};
use plimsoll_protocol::control::Facts;
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_protocol::stall::{StallCause, StallStatus, StallTime, Standstill};
use plimsoll_protocol::{Percent, VmName};
use plimsoll_units::Pages;

use super::run::Run;
use super::{Clock, Core, RunId, limit};

/// One VM's stalls, by the reports of its VMM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StallAccount {
    stalls: Stalls,
    /// When its VMM reported last.
    reported: Instant,
    /// The stretch in which it was stalled in full for most of each report's time.
    began: Option<Stretch>,
    /// The stretch that was reported as a standstill. It lasts until the averages show that it is
    /// over.
    still: Option<Stretch>,
    /// The account of the last sample for the history: when, `some`, `full`.
    sampled: (Instant, Duration, Duration),
}

/// When a stretch of stalls began, and the total of `full` then.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    since: Timestamp,
    full: Duration,
}

impl StallAccount {
    /// The account of a VM that has run for `age`, by what its VMM says.
    pub(super) fn new(facts: &Facts, age: Duration, now: Instant) -> Self {
        let [some, full] = [facts.stall_some, facts.stall_full].map(|claim| claim.min(age));
        let stalls = Stalls::new(some, full);
        Self { stalls, reported: now, began: None, still: None, sampled: (now, some, full.min(some)) }
    }

    /// Takes what the VMM reports. Returns by how much `some` and `full` have grown.
    fn observe(&mut self, facts: &Facts, clock: Clock) -> (Duration, Duration) {
        let elapsed = clock.now.saturating_duration_since(self.reported);
        self.reported = clock.now;
        let since = clock.at.saturating_sub(elapsed).unwrap_or(clock.at);
        let began = self.began.unwrap_or(Stretch { since, full: self.stalls.full().total() });
        let grown = self.stalls.observe(elapsed, facts.stall_some, facts.stall_full);
        if elapsed > Duration::ZERO {
            self.began = (2 * grown.1 > elapsed).then_some(began);
        }
        self.still = self.stalls.stands_still().then(|| self.still.unwrap_or(began));
        grown
    }

    /// The parts of the last ten seconds, and of the time between the last two reports, in which
    /// something in the VM was stalled.
    pub(super) fn lately(&self) -> [f64; 2] {
        let some = self.stalls.some();
        [some.averages()[0], some.latest()]
    }

    /// Since when the VM stands still, if it still does by its last report.
    fn still(&self) -> Option<Timestamp> {
        self.still.filter(|_| self.began.is_some()).map(|stretch| stretch.since)
    }

    /// The parts of the time since the last sample that were stalls: `some` and `full`.
    pub(super) fn since_sample(&self) -> (Percent, Percent) {
        let (then, some, full) = self.sampled;
        let elapsed = self.reported.saturating_duration_since(then).as_secs_f64();
        let part = |meter: StallMeter, before: Duration| {
            let grown = meter.total().saturating_sub(before).as_secs_f64();
            if elapsed > 0.0 { Percent::of_fraction(grown / elapsed) } else { Percent::default() }
        };
        (part(self.stalls.some(), some), part(self.stalls.full(), full))
    }

    fn sample(&mut self) {
        self.sampled = (self.reported, self.stalls.some().total(), self.stalls.full().total());
    }

    /// The account as users see it.
    pub(super) fn status(&self) -> StallStatus {
        let time = |meter: StallMeter| stall_time(meter.averages(), meter.total());
        StallStatus { some: time(self.stalls.some()), full: time(self.stalls.full()) }
    }
}

impl Core {
    /// Takes what a VMM reports of stalls. Events say when its VM begins to stand still, and when
    /// that is over.
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
                let vm = self.vm(name).and_then(|vm| Some((&vm.record.definition, vm.run.as_deref()?)));
                if let Some(cause) = vm.map(|(definition, run)| self.stall_cause(definition, run)) {
                    self.event(Some(name), cause.to_string());
                }
            }
            (Some(Stretch { full, .. }), None) => {
                let seconds = total.saturating_sub(full).as_secs();
                self.event(
                    Some(name),
                    format!("the guest is no longer stalled: it stood still for {seconds} s"),
                );
            }
            _ => {}
        }
    }

    /// The stalls counted so far are in the history.
    pub(super) fn sample_stalls(&mut self) {
        self.vms.values_mut().filter_map(|vm| vm.run.as_deref_mut()).for_each(|run| run.stall.sample());
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
        } else if has >= run.most {
            StallCause::AtPoolLimit(run.most.bytes())
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

fn stall_time(averages: [f64; 3], total: Duration) -> StallTime {
    let [avg10, avg60, avg300] = averages.map(Percent::of_fraction);
    StallTime { avg10, avg60, avg300, total_ms: u64::try_from(total.as_millis()).unwrap_or(u64::MAX) }
}
