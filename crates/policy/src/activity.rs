use std::time::Duration;

use plimsoll_units::Pages;

/// An estimate of the memory that a VM actively uses, from what the host sees of it without asking the guest: the pages
/// that its faults bring in. What was touched lately is active; without new touches the estimate halves every
/// [`Activity::HALF_LIFE`].
///
/// A VM that waits for memory is taken to use all that it holds: it cannot touch anything while it waits (Waldspurger
/// 2002, section 5.3, measures in VM execution time), and if it could do without, it would not wait. To wait without
/// need gains a hostile guest no more than its shares are worth.
///
/// A guest that uses the same pages over and over looks idle to this estimate, until its balloon makes it fault
/// again. Sampling of resident pages sees what this cannot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Activity {
    touched: f64,
    wanted: Pages,
}

impl Activity {
    /// Longer, and a VM that has finished keeps others from memory; shorter, and one that pauses loses its own.
    pub const HALF_LIFE: Duration = Duration::from_secs(15);

    /// `elapsed` has passed, in which the VM's faults brought in `touched` pages; it holds `held`, and `wanted` pages
    /// are waited for.
    pub fn observe(&mut self, elapsed: Duration, touched: Pages, wanted: Pages, held: Pages) {
        let decay = 0.5f64.powf(elapsed.as_secs_f64() / Self::HALF_LIFE.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let (touched, held) = (touched.0 as f64, held.0 as f64);
        let waits = wanted > Pages::ZERO;
        self.touched = if waits { held } else { (self.touched * decay + touched).min(held) };
        self.wanted = wanted;
    }

    /// The estimate: what was touched lately and what is waited for.
    pub fn active(&self) -> Pages {
        self.touched().saturating_add(self.wanted)
    }

    /// The part of it that was touched lately.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "never negative, bounded by a page count"
    )]
    pub fn touched(&self) -> Pages {
        Pages(self.touched as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_touched_counts_at_once_and_fades() {
        let mut activity = Activity::default();
        activity.observe(Duration::from_secs(1), Pages(1000), Pages(0), Pages(1500));
        assert_eq!(activity.active(), Pages(1000));
        activity.observe(Activity::HALF_LIFE, Pages(0), Pages(0), Pages(1500));
        assert_eq!(activity.active(), Pages(500));
    }

    #[test]
    fn a_vm_that_waits_uses_what_it_holds_and_for_a_while_thereafter() {
        let mut activity = Activity::default();
        activity.observe(Activity::HALF_LIFE, Pages(0), Pages(7), Pages(1500));
        assert_eq!(activity.active(), Pages(1507));
        activity.observe(Activity::HALF_LIFE, Pages(0), Pages(0), Pages(1500));
        assert_eq!(activity.active(), Pages(750));
    }

    #[test]
    fn no_more_is_active_than_is_held_or_wanted() {
        let mut activity = Activity::default();
        activity.observe(Duration::from_secs(1), Pages(1000), Pages(50), Pages(100));
        assert_eq!(activity.active(), Pages(150));
    }
}
