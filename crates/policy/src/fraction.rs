//! Fractions of pages, and parts of a whole in proportion.

use plimsoll_units::Pages;

/// `pages` as a number with fractions: an amount that fades by a rate loses less than a page a
/// step.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 pages")]
pub(crate) fn count(pages: Pages) -> f64 {
    pages.0 as f64
}

/// The whole pages in `pages`, which is not negative.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative; saturates")]
pub(crate) fn whole(pages: f64) -> Pages {
    Pages(pages as u64)
}

/// The part of `whole` for a weight of `weight` out of `all`, rounded up; at most `weight`.
pub(crate) fn part(whole: Pages, weight: Pages, all: Pages) -> Pages {
    if all == Pages::ZERO || weight == Pages::ZERO {
        return Pages::ZERO;
    }
    // 64 bits suffice for all but the largest hosts, and divide several times as fast.
    if let Some(product) = whole.0.checked_mul(weight.0) {
        return Pages(product.div_ceil(all.0)).min(weight);
    }
    let share = (u128::from(whole.0) * u128::from(weight.0)).div_ceil(u128::from(all.0));
    Pages(u64::try_from(share).unwrap_or(u64::MAX)).min(weight)
}
