//! The speed at which a balloon grows, as it was seen last.
//!
//! Linux fills a balloon with free pages first. Pages that were never touched, or that the guest
//! has reported free, hold no memory of the host: the balloon brings nothing before it has taken
//! them in. A host passes 128 MiB of them a second. A guest that shares its processor with many may
//! pass one, and what other guests need would come in minutes. So balloons are asked for the memory
//! that they bring [in time](Inflation::PATIENCE), and paging for the rest.

use std::time::Duration;

use plimsoll_units::Pages;

use crate::fraction::{count, whole};
use crate::rules::Rules;

/// The speed of one balloon over time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Inflation {
    /// Its size at the last observation.
    ballooned: Pages,
    /// How long it has been below its size, since that began or was measured last.
    behind: Duration,
    /// Its growth in that time.
    grown: Pages,
    /// The last measured speed in pages a second, and the time since.
    last: Option<(f64, Duration)>,
}

impl Inflation {
    /// The time in which a balloon has to bring memory. If less, guests that turn busy together are
    /// paged although their balloons are about to bring memory. If more, VMs wait longer where
    /// balloons take in free pages that hold nothing.
    pub const PATIENCE: Duration = Duration::from_secs(10);

    /// A balloon that has not reached its size for this long is measured. VMMs report the size once
    /// a second, and later where processors are short: less would often see no growth at all.
    const MEASURE: Duration = Duration::from_secs(3);

    /// The time after which a measured speed counts no longer: the balloon is tried again.
    const FORGET: Duration = Duration::from_secs(30);

    /// Takes note of what `elapsed` has brought: the balloon of a guest of `size` memory was told to
    /// have `told`, and has `ballooned`.
    pub fn observe(&mut self, elapsed: Duration, size: Pages, told: Pages, ballooned: Pages) {
        let before = std::mem::replace(&mut self.ballooned, ballooned);
        self.last = self.last.map(|(speed, age)| (speed, age.saturating_add(elapsed)));
        self.last = self.last.filter(|(_, age)| *age < Self::FORGET);
        if told <= before.saturating_add(step(size)) {
            (self.behind, self.grown) = (Duration::ZERO, Pages::ZERO);
            return;
        }
        self.behind = self.behind.saturating_add(elapsed);
        self.grown = self.grown.saturating_add(ballooned.saturating_sub(before));
        if self.behind >= Self::MEASURE {
            self.last = Some((count(self.grown) / self.behind.as_secs_f64(), Duration::ZERO));
            (self.behind, self.grown) = (Duration::ZERO, Pages::ZERO);
        }
    }

    /// The most memory that the balloon brings within [`Self::PATIENCE`], if it takes in `hollow`
    /// pages first that hold nothing.
    pub fn brings(&self, rules: &Rules, hollow: Pages) -> Pages {
        self.reach(rules).saturating_sub(hollow)
    }

    /// Whether the balloon has not grown at all while it was measured last.
    pub(crate) fn is_still(&self) -> bool {
        self.last.is_some_and(|(speed, _)| speed == 0.0)
    }

    /// The pages that the balloon takes in within that time: as fast as it was seen last, or as
    /// fast as `rules` allow.
    fn reach(&self, rules: &Rules) -> Pages {
        let most = count(rules.inflation);
        let speed = self.last.map_or(most, |(speed, _)| speed.min(most));
        whole(speed * Self::PATIENCE.as_secs_f64())
    }
}

/// The part of a guest's memory by which its balloon grows at a time while nothing has to come: all
/// of it in a quarter of an hour, as a VMM reports its balloon once a second. If more, guests pass
/// pages that hold nothing into their balloons while others need the processors. If less, a guest
/// learns late of its target, and what it takes beyond it is paged: with a quarter of this guests
/// that start work together write a tenth more to swap (`plimsoll plan vdi-morning`).
const STEPS: u64 = 1024;

/// The growth of the balloon of a guest of `size` while nothing has to come: 256 KiB at least.
pub(crate) fn step(size: Pages) -> Pages {
    Pages(size.0 / STEPS).max(Pages(Pages::CHUNK.0 / 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const SIZE: Pages = Pages(1 << 20);
    const TOLD: Pages = Pages(500_000);

    fn rules() -> Rules {
        Rules::default()
    }

    #[test]
    fn a_balloon_is_taken_to_be_fast_until_it_is_seen_to_be_slow() {
        let mut inflation = Inflation::default();
        assert_eq!(inflation.reach(&rules()), Pages(Rules::INFLATION.0 * 10));
        for second in 1..=2 {
            inflation.observe(SECOND, SIZE, TOLD, Pages(100 * second));
            assert_eq!(inflation.reach(&rules()), Pages(Rules::INFLATION.0 * 10), "{second}");
        }
        inflation.observe(SECOND, SIZE, TOLD, Pages(300));
        assert_eq!(inflation.reach(&rules()), Pages(1000));
        // It is measured again and again, and never counts as faster than it may grow.
        for second in 0..3 {
            inflation.observe(SECOND, SIZE, TOLD, Pages(300 + 100_000 * second));
        }
        assert_eq!(inflation.reach(&rules()), Pages(Rules::INFLATION.0 * 10));
    }

    #[test]
    fn a_speed_is_forgotten_and_a_balloon_that_goes_step_by_step_has_none() {
        let mut inflation = Inflation::default();
        for _ in 0..3 {
            inflation.observe(SECOND, SIZE, TOLD, Pages::ZERO);
        }
        assert_eq!(inflation.reach(&rules()), Pages::ZERO);
        // From now on it is told its own size and a step.
        let mut forgotten = 0;
        while inflation.reach(&rules()) == Pages::ZERO {
            inflation.observe(SECOND, SIZE, step(SIZE), Pages::ZERO);
            forgotten += 1;
            assert!(forgotten <= 30, "{inflation:?}");
        }
        assert_eq!(forgotten, 30);
        // A balloon that reaches its size within the time is not slow.
        for _ in 0..10 {
            inflation.observe(SECOND, SIZE, TOLD, Pages::ZERO);
            inflation.observe(SECOND, SIZE, TOLD, TOLD);
            inflation.observe(SECOND, SIZE, Pages::ZERO, Pages::ZERO);
        }
        assert_eq!(inflation.reach(&rules()), Pages(Rules::INFLATION.0 * 10));
    }
}
