//! How much memory a VM needs, from what its samples and its waits show.
//!
//! Samples show what a VM touches of what it has ([`Estimator`](crate::Estimator)). They cannot
//! show what it lacks. [`Need`] adds that:
//!
//! - **While a VM lacks memory** its need is what samples show and what is missing. What is
//!   missing begins with what its faults wait for, and doubles every [`Need::DOUBLING`] until it
//!   is there. So a VM that waits for one page needs one page more, and one that is served
//!   nothing for three seconds needs 64 times as much. Waits that follow each other within
//!   [`Need::GRACE`] are one lack: a VM that serves its faults from its own pages waits again
//!   and again, each time for a moment.
//! - **While a VM lacks memory its need does not fall.** A VM that stands still touches little,
//!   and would look idle for it. The paper times samples by the VM's execution for the same
//!   reason (Waldspurger 2002, section 5.3).
//! - **Once it lacks nothing** the need fades to what samples show, by half in
//!   [`Need::FADING`]: long enough for others to give, and for samples to see what the VM does
//!   with it.
//!
//! A guest can make its VM wait by touching memory, and so make its need rise. It then gets what
//! a VM that uses all its memory gets, which is what its shares are worth.

use std::time::Duration;

use plimsoll_units::Pages;

use crate::Estimator;

/// What shows a VM's need at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// What samples show that it uses of what it holds.
    pub estimate: Pages,
    /// The most that it may hold: the smaller of its limit and size.
    pub most: Pages,
    /// What its faults wait for in vain, or had to be served from its own pages since the last
    /// look.
    pub waits: Pages,
    /// It is known not to run freely for another reason: its guest scrapes for memory, or its
    /// processors are stopped.
    pub starved: bool,
}

/// The need of one VM over time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Need {
    /// Pages. Never below what is missing beyond the estimate.
    level: f64,
    /// Pages that the VM lacks; 0 while it waits for nothing.
    missing: f64,
    /// Since it last waited.
    quiet: Duration,
}

impl Need {
    /// In which a lack that is not served doubles. Longer, and a VM that has turned busy waits
    /// for seconds; shorter, and a wait of a tenth of a second looks like need of many chunks.
    pub const DOUBLING: Duration = Duration::from_millis(500);
    /// Waits no further apart than this are one lack: somewhat more than the second between two
    /// reports of a VM, so that none is missed.
    pub const GRACE: Duration = Duration::from_millis(1500);
    /// In which a need that is not seen any more fades by half. Shorter, and others' balloons,
    /// which take seconds, stop before they have given what was needed, and samples, which take
    /// a period, have not seen what it is used for. Longer, and a VM that was busy for a moment
    /// keeps others from memory that it does not use. What it needs and does not hold is free,
    /// and keeps nobody from anything.
    pub const FADING: Duration = Estimator::PERIOD;

    /// `elapsed` has passed and `signs` are seen.
    pub fn observe(&mut self, elapsed: Duration, signs: &Signs) {
        let [estimate, most, waits] = [signs.estimate, signs.most, signs.waits].map(count);
        let powers = |time: Duration, of: Duration| time.as_secs_f64() / of.as_secs_f64();
        self.quiet = self.quiet.saturating_add(elapsed);
        if waits > 0.0 {
            let lacking = self.quiet.min(Self::GRACE.max(elapsed));
            let grown = self.missing * 2f64.powf(powers(lacking, Self::DOUBLING));
            self.missing = grown.max(waits).min((most - estimate).max(0.0));
            self.quiet = Duration::ZERO;
        } else if self.quiet > Self::GRACE {
            self.missing = 0.0;
            if !signs.starved {
                let beyond = (self.level - estimate).max(0.0);
                self.level = estimate + beyond * 0.5f64.powf(powers(elapsed, Self::FADING));
            }
        }
        self.level = self.level.max(estimate + self.missing).min(most.max(estimate));
    }

    /// What the VM is taken to use: `estimate`, which is what samples show, or what it has shown
    /// to need.
    pub fn active(&self, estimate: Pages) -> Pages {
        estimate.max(whole(self.level))
    }

    /// What it lacks, by how long it has been without.
    pub fn missing(&self) -> Pages {
        whole(self.missing)
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn count(pages: Pages) -> f64 {
    pages.0 as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative; saturates")]
fn whole(pages: f64) -> Pages {
    Pages(pages as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn signs(estimate: u64, waits: u64) -> Signs {
        Signs { estimate: Pages(estimate), most: Pages(65_536), waits: Pages(waits), starved: false }
    }

    fn observed(course: &[(Duration, Signs)]) -> Need {
        let mut need = Need::default();
        for (elapsed, signs) in course {
            need.observe(*elapsed, signs);
        }
        need
    }

    #[test]
    fn an_idle_vm_that_waits_for_a_page_needs_a_page() {
        let need = observed(&[(SECOND, signs(11_000, 0)), (SECOND, signs(11_000, 1))]);
        assert_eq!(need.active(Pages(11_000)), Pages(11_001));
        assert_eq!(need.missing(), Pages(1));
    }

    #[test]
    fn a_lack_that_lasts_doubles_until_it_is_all_that_the_vm_may_have() {
        let mut need = observed(&[(SECOND, signs(11_000, 512))]);
        for (second, expected) in (1..).zip([2048, 8192, 32_768, 54_536, 54_536]) {
            need.observe(SECOND, &signs(11_000, 512));
            assert_eq!(need.missing(), Pages(expected), "after {second} s");
        }
        assert_eq!(need.active(Pages(11_000)), Pages(65_536));
    }

    #[test]
    fn waits_that_follow_each_other_are_one_lack() {
        let moment = Duration::from_millis(10);
        let mut need = Need::default();
        for _ in 0..7 {
            need.observe(SECOND, &signs(11_000, 0));
            need.observe(moment, &signs(11_000, 1));
        }
        assert!(need.missing() > Pages(4096), "{need:?}");
        // A VM that waits for a page now and then needs a page.
        for _ in 0..7 {
            need.observe(SECOND * 3, &signs(11_000, 0));
            need.observe(moment, &signs(11_000, 1));
            assert_eq!(need.missing(), Pages(1));
        }
    }

    #[test]
    fn need_does_not_fall_while_the_vm_lacks_memory_and_fades_when_it_does_not() {
        let mut need = observed(&[(SECOND, signs(40_000, 5000))]);
        for _ in 0..120 {
            need.observe(SECOND, &signs(13_000, 1));
        }
        assert_eq!(need.active(Pages(13_000)), Pages(65_536), "what it lacked for two minutes");
        let starved = Signs { starved: true, ..signs(13_000, 0) };
        for _ in 0..120 {
            need.observe(SECOND, &starved);
        }
        assert_eq!(need.active(Pages(13_000)), Pages(65_536));
        need.observe(Need::FADING, &signs(13_000, 0));
        assert_eq!(need.active(Pages(13_000)), Pages(39_268), "half of the way");
    }
}
