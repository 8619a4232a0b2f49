use std::time::Duration;

use plimsoll_units::Pages;

/// An estimate of the memory that a VM actively uses, from what the host sees of it without asking the guest: the pages
/// that its faults bring in. What was touched lately is active; without new touches the estimate halves every
/// [`Activity::HALF_LIFE`].
///
/// A guest that uses the same pages over and over looks idle to this estimate, until its balloon makes it fault
/// again. Sampling of resident pages (Waldspurger 2002, section 5.3) sees what this cannot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Activity {
    pages: f64,
}

impl Activity {
    /// Longer, and a VM that has finished keeps others from memory; shorter, and one that pauses loses its own.
    pub const HALF_LIFE: Duration = Duration::from_secs(30);

    /// The VM has run for `elapsed`, in which its faults brought in `touched` pages and `wanted` pages are waited for; it
    /// holds `held`.
    pub fn observe(&mut self, elapsed: Duration, touched: Pages, wanted: Pages, held: Pages) {
        let decay = 0.5f64.powf(elapsed.as_secs_f64() / Self::HALF_LIFE.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let (touched, most) = (touched.0 as f64, held.saturating_add(wanted).0 as f64);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let waiting = wanted.0 as f64;
        self.pages = (self.pages * decay + touched + waiting).min(most);
    }

    /// The estimate, at most what the VM held and wanted when it was last observed.
    pub fn active(&self) -> Pages {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "never negative, bounded by a page count"
        )]
        Pages(self.pages as u64)
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
    fn no_more_is_active_than_is_held_or_wanted() {
        let mut activity = Activity::default();
        activity.observe(Duration::from_secs(1), Pages(1000), Pages(50), Pages(100));
        assert_eq!(activity.active(), Pages(150));
    }
}
