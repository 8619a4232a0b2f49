//! Whether a VM's balloon follows its target.

use std::time::{Duration, Instant};

use plimsoll_protocol::status::BalloonHealth;
use plimsoll_units::Pages;

/// How long a balloon may stand still below its target. A driver is asked once and works at once; a
/// guest that has to write back its page cache first still makes some progress within a few
/// seconds. Shorter, and a busy guest is called stuck; longer, and others wait for nothing.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// Fewer pages are no progress: drivers move in units of 256 pages, and single pages come back for
/// other reasons.
const STEP: Pages = Pages(64);

/// The progress of one balloon. What counts is what came back, never what the guest's driver
/// claims.
#[derive(Debug)]
pub(crate) struct Liveness {
    best: Pages,
    since: Instant,
    health: BalloonHealth,
}

/// A balloon as it is at some moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    /// A driver has been seen.
    pub(crate) driver: bool,
    /// The VM holds more than its target.
    pub(crate) above_target: bool,
    /// The VM waits for memory: its driver may be what cannot run.
    pub(crate) waits: bool,
    /// Pages in the balloon that have come back to the host.
    pub(crate) ballooned: Pages,
    /// Pages that should be in it.
    pub(crate) wanted: Pages,
}

impl Liveness {
    pub(crate) fn new(now: Instant) -> Self {
        Self { best: Pages::ZERO, since: now, health: BalloonHealth::Absent }
    }

    pub(crate) fn health(&self) -> BalloonHealth {
        self.health
    }

    /// Takes a new sight. Returns the balloon's health.
    pub(crate) fn observe(&mut self, now: Instant, sight: Sight) -> BalloonHealth {
        let behind =
            sight.above_target && !sight.waits && sight.ballooned.saturating_add(STEP) < sight.wanted;
        if !behind || sight.ballooned >= self.best.saturating_add(STEP) {
            (self.best, self.since) = (sight.ballooned, now);
        }
        let late = now.saturating_duration_since(self.since) >= DEADLINE;
        self.health = match (sight.driver, late) {
            (false, _) => BalloonHealth::Absent,
            (true, true) => BalloonHealth::Stuck,
            (true, false) => BalloonHealth::Following,
        };
        self.health
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(ballooned: u64) -> Sight {
        Sight {
            driver: true,
            above_target: true,
            waits: false,
            ballooned: Pages(ballooned),
            wanted: Pages(10_000),
        }
    }

    #[test]
    fn a_balloon_is_stuck_when_it_stands_still_and_no_earlier() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        assert_eq!(liveness.observe(start, behind(0)), BalloonHealth::Following);
        let later = start + DEADLINE - Duration::from_secs(1);
        assert_eq!(liveness.observe(later, behind(256)), BalloonHealth::Following);
        assert_eq!(liveness.observe(start + DEADLINE, behind(257)), BalloonHealth::Following);
        assert_eq!(liveness.observe(later + DEADLINE, behind(257)), BalloonHealth::Stuck);
        assert_eq!(liveness.observe(later + DEADLINE * 2, behind(512)), BalloonHealth::Following);
    }

    #[test]
    fn a_vm_within_its_target_or_without_driver_is_never_stuck() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        let within = Sight { above_target: false, ..behind(0) };
        assert_eq!(liveness.observe(start + DEADLINE * 2, within), BalloonHealth::Following);
        let waiting = Sight { waits: true, ..behind(0) };
        assert_eq!(liveness.observe(start + DEADLINE * 4, waiting), BalloonHealth::Following);
        let absent = Sight { driver: false, ..behind(0) };
        assert_eq!(liveness.observe(start + DEADLINE * 9, absent), BalloonHealth::Absent);
    }
}
