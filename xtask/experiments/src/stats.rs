//! Medians and spread of measured figures.

use serde::Serialize;

/// Middle and ends of some samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// As many samples are smaller as are larger.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Spread {
    /// The spread of `samples`, rounded to `digits` after the point; `None` where there are no
    /// samples.
    pub(crate) fn of(samples: impl IntoIterator<Item = f64>, digits: u32) -> Option<Self> {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        let scale = f64::from(10_u32.pow(digits));
        let round = |value: f64| (value * scale).round() / scale;
        Some(Self { median: round(median), min: round(min), max: round(max) })
    }
}

/// The middle of `samples`, the larger one where there are two; zero where there are none.
pub(crate) fn median(samples: impl IntoIterator<Item = u64>) -> u64 {
    let mut sorted: Vec<u64> = samples.into_iter().collect();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

/// The median of at least one value, between the ends of its 95 % interval. Those are values
/// themselves, as far from the middle as that many tosses of a coin go (the sign test): a few turns
/// that another program has spoilt widen it little.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place among the values")]
#[expect(clippy::cast_precision_loss, reason = "a count")]
pub(crate) fn interval(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len() as f64;
    let first = (count / 2.0 - 0.98 * count.sqrt()).max(0.0) as usize;
    [sorted[first], sorted[sorted.len() / 2], sorted[sorted.len() - 1 - first]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_stands_in_the_middle_whatever_the_order() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0], 1), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0], 1), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(median([5, 1, 9]), 5);
        assert_eq!(median([5, 1, 9, 7]), 7);
    }

    #[test]
    fn one_outlier_moves_an_end_and_not_the_median() {
        let calm = Spread::of([1.0, 1.0, 1.0, 1.0, 1.0], 3).unwrap();
        let noisy = Spread::of([1.0, 1.0, 100.0, 1.0, 1.0], 3).unwrap();
        assert_eq!((calm.median, noisy.median, noisy.max), (1.0, 1.0, 100.0));
    }

    #[test]
    fn no_samples_have_no_spread() {
        assert_eq!(Spread::of([], 0), None);
        assert_eq!(median([]), 0);
    }

    #[test]
    fn figures_are_rounded_as_asked() {
        let spread = Spread::of([1.234_56], 2).unwrap();
        assert_eq!(spread, Spread { median: 1.23, min: 1.23, max: 1.23 });
    }

    #[test]
    fn the_interval_narrows_as_values_are_added_and_bears_outliers() {
        let of = |count: i32| interval(&(0..count).map(f64::from).collect::<Vec<_>>());
        assert_eq!(of(3), [0.0, 1.0, 2.0]);
        assert_eq!(of(101), [40.0, 50.0, 60.0]);
        let mut values = vec![1.0; 99];
        values.push(1e9);
        assert_eq!(interval(&values), [1.0; 3]);
    }
}
