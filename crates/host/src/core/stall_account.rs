use std::time::{Duration, Instant};

use jiff::Timestamp;
use plimsoll_policy::{StallMeter, Stalls};
use plimsoll_protocol::Percent;
use plimsoll_protocol::control::Facts;
use plimsoll_protocol::stall::{StallStatus, StallTime};

use super::Clock;

/// One VM's stalls, by the reports of its VMM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StallAccount {
    pub(super) stalls: Stalls,
    /// When its VMM reported last.
    reported: Instant,
    /// The stretch in which it was stalled in full for most of each report's time.
    began: Option<Stretch>,
    /// The stretch that was reported as a standstill. It lasts until the averages show that it is
    /// over.
    pub(super) still: Option<Stretch>,
    /// The account of the last sample for the history: when, `some`, `full`.
    sampled: (Instant, Duration, Duration),
}

/// When a stretch of stalls began, and the total of `full` then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    since: Timestamp,
    pub(super) full: Duration,
}

impl StallAccount {
    /// The account of a VM that has run for `age`, by its VMM's report.
    pub(super) fn new(facts: &Facts, age: Duration, now: Instant) -> Self {
        let [some, full] = [facts.stall_some, facts.stall_full].map(|claim| claim.min(age));
        let stalls = Stalls::new(some, full);
        Self { stalls, reported: now, began: None, still: None, sampled: (now, some, full.min(some)) }
    }

    /// Takes a report. Returns by how much `some` and `full` have grown.
    pub(super) fn observe(&mut self, facts: &Facts, clock: Clock) -> (Duration, Duration) {
        let elapsed = clock.now.saturating_duration_since(self.reported);
        self.reported = clock.now;
        let since = clock.at.saturating_sub(elapsed).unwrap_or(clock.at);
        let began = self.began.unwrap_or(Stretch { since, full: self.stalls.full().total() });
        let grown = self.stalls.observe(elapsed, facts.stall_some, facts.stall_full);
        if facts.paused {
            // It stands still because its operator said so.
            (self.began, self.still) = (None, None);
            return grown;
        }
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
    pub(super) fn still(&self) -> Option<Timestamp> {
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

    pub(super) fn sample(&mut self) {
        self.sampled = (self.reported, self.stalls.some().total(), self.stalls.full().total());
    }

    /// The account as users see it.
    pub(super) fn status(&self) -> StallStatus {
        let time = |meter: StallMeter| stall_time(meter.averages(), meter.total());
        StallStatus { some: time(self.stalls.some()), full: time(self.stalls.full()) }
    }
}

/// Averages and total as the API tells them.
pub(super) fn stall_time(averages: [f64; 3], total: Duration) -> StallTime {
    let [avg10, avg60, avg300] = averages.map(Percent::of_fraction);
    StallTime { avg10, avg60, avg300, total_ms: u64::try_from(total.as_millis()).unwrap_or(u64::MAX) }
}
