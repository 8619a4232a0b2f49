//! Amounts of pages with fractions: what fades or grows by a rate loses less than a page a step.

use plimsoll_units::Pages;

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 pages")]
pub(crate) fn count(pages: Pages) -> f64 {
    pages.0 as f64
}

/// The whole pages in `pages`, which is not negative.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative; saturates")]
pub(crate) fn whole(pages: f64) -> Pages {
    Pages(pages as u64)
}
