//! How fast a series rises, whatever a few of its values do.

/// The slope of the line that Theil and Sen lay through points of time and value: the median of the
/// slopes between any two. Up to a quarter of the values may stand out without moving it. Zero
/// where no two times differ.
pub(super) fn slope(points: &[(f64, f64)]) -> f64 {
    let mut slopes: Vec<f64> = Vec::new();
    for (i, (at, value)) in points.iter().enumerate() {
        let later = points[i + 1..].iter().filter(|(later, _)| later > at);
        slopes.extend(later.map(|(later, then)| (then - value) / (later - at)));
    }
    slopes.sort_by(f64::total_cmp);
    let middle = slopes.len() / 2;
    match slopes.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => slopes[middle],
        _ => f64::midpoint(slopes[middle - 1], slopes[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(value: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
        (0..40).map(|n| (f64::from(n), value(f64::from(n)))).collect()
    }

    #[test]
    fn a_line_has_its_slope_and_noise_has_none() {
        assert_eq!(slope(&series(|at| 3.0 * at + 5.0)), 3.0);
        let noisy = slope(&series(|at| 100.0 + 10.0 * (at * 7.3).sin()));
        assert!(noisy.abs() < 0.2, "{noisy}");
        assert_eq!(slope(&[]), 0.0);
        assert_eq!(slope(&[(1.0, 2.0), (1.0, 9.0)]), 0.0);
    }

    #[test]
    fn values_that_stand_out_move_nothing() {
        let mut points = series(|at| 2.0 * at);
        for point in points.iter_mut().step_by(5) {
            point.1 += 10_000.0;
        }
        assert!((slope(&points) - 2.0).abs() < 0.5, "{}", slope(&points));
    }
}
