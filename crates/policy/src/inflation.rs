//! The speed at which a balloon grows, as it was seen last.
//!
//! Linux fills a balloon with free pages first. Pages that were never touched, or that the guest
//! has reported free, hold no memory of the host: the balloon brings nothing before it has taken
//! them in. A guest on a processor of its own passes 128 MiB of them a second. One that shares its
//! processor with many may pass one, and keeps the others from it meanwhile: what they need would
//! come in minutes. So a balloon that was seen to be slow is asked only for memory that it brings
//! [in time](Inflation::PATIENCE), and paging for the rest.

use std::time::Duration;

use plimsoll_units::Pages;

use crate::fraction::{count, whole};
use crate::rules::Rules;

/// The speed of one balloon over time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Inflation {
    /// Its size at the last observation.
    ballooned: Pages,
    /// How long it has been below the size that it was told, since that began or was measured last.
    behind: Duration,
    /// Its growth in that time.
    grown: Pages,
    /// The last measured speed in pages a second, and the time since.
    last: Option<(f64, Duration)>,
}

impl Inflation {
    /// The time in which a slow balloon has to bring memory. If less, guests are paged although
    /// their balloons are about to bring memory. If more, other VMs wait longer, for memory and for
    /// processors.
    pub const PATIENCE: Duration = Duration::from_secs(10);

    /// A balloon that has not reached its size for this long is measured. VMMs report the size once
    /// a second, and later where processors are short: less would often see no growth at all.
    const MEASURE: Duration = Duration::from_secs(3);

    /// The time after which a measured speed counts no longer: the balloon is tried again.
    const FORGET: Duration = Duration::from_secs(30);

    /// Takes note of what `elapsed` has brought: the balloon of a guest of `size` memory was told
    /// to have `told`, and has `ballooned`.
    pub fn observe(&mut self, elapsed: Duration, size: Pages, told: Pages, ballooned: Pages) {
        let before = std::mem::replace(&mut self.ballooned, ballooned);
        self.last = self.last.map(|(speed, age)| (speed, age.saturating_add(elapsed)));
        self.last = self.last.filter(|(_, age)| *age < Self::FORGET);
        if told <= ballooned.saturating_add(step(size)) {
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

    /// The most memory that the balloon brings within [`Self::PATIENCE`], if it is slow and takes
    /// in `hollow` pages first that hold nothing; `None`: as far as is known it is not slow.
    pub(crate) fn brings(&self, rules: &Rules, hollow: Pages) -> Option<Pages> {
        let (speed, _) = self.last?;
        let reach = whole(speed * Self::PATIENCE.as_secs_f64());
        (speed * SLOW < count(rules.inflation)).then(|| reach.saturating_sub(hollow))
    }

    /// Whether the balloon has not grown at all while it was measured last.
    pub(crate) fn is_still(&self) -> bool {
        self.last.is_some_and(|(speed, _)| speed == 0.0)
    }
}

/// A balloon is slow if it grows by less than this part of its largest rate. Guests that are busy
/// together with as many others as there are processors grow their balloons faster than that; ones
/// in emulation, or many on few processors, do not.
const SLOW: f64 = 8.0;

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

    #[test]
    fn a_balloon_is_slow_once_it_was_seen_to_be() {
        let rules = Rules::default();
        let mut inflation = Inflation::default();
        for second in 1..=2 {
            inflation.observe(SECOND, SIZE, TOLD, Pages(100 * second));
            assert_eq!(inflation.brings(&rules, Pages::ZERO), None, "{second}");
        }
        inflation.observe(SECOND, SIZE, TOLD, Pages(300));
        let brings = [0, 400, 5000].map(|hollow| inflation.brings(&rules, Pages(hollow)));
        assert_eq!(brings, [Some(Pages(1000)), Some(Pages(600)), Some(Pages(0))]);
        // It is measured again and again.
        for second in 1..=3 {
            inflation.observe(SECOND, SIZE, TOLD, Pages(300 + 5000 * second));
        }
        assert_eq!(inflation.brings(&rules, Pages::ZERO), None);
    }

    #[test]
    fn a_speed_is_forgotten_and_a_balloon_that_goes_step_by_step_has_none() {
        let rules = Rules::default();
        let mut inflation = Inflation::default();
        for _ in 0..3 {
            inflation.observe(SECOND, SIZE, TOLD, Pages::ZERO);
        }
        assert!(inflation.is_still() && inflation.brings(&rules, Pages::ZERO) == Some(Pages::ZERO));
        // From now on it is told its own size and a step.
        let mut forgotten = 0;
        while inflation.brings(&rules, Pages::ZERO).is_some() {
            inflation.observe(SECOND, SIZE, step(SIZE), Pages::ZERO);
            forgotten += 1;
            assert!(forgotten <= 30, "{inflation:?}");
        }
        assert_eq!(forgotten, 30);
        // A balloon that reaches its size is not slow, however small its last step.
        inflation.observe(SECOND * 10, SIZE, Pages(5000), Pages(5000));
        for _ in 0..5 {
            inflation.observe(SECOND, SIZE, TOLD, Pages::ZERO);
            inflation.observe(SECOND, SIZE, TOLD, TOLD);
            inflation.observe(SECOND, SIZE, Pages::ZERO, Pages::ZERO);
        }
        assert_eq!(inflation.brings(&rules, Pages::ZERO), None);
    }
}
