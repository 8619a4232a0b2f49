/// A sum of numbers that keeps the rounding error of each addition (Knuth's TwoSum, carried along).
/// A sweep adds and subtracts slopes many thousand times: with plain numbers a few small slopes
/// among large ones would be lost in noise.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PreciseSum {
    high: f64,
    low: f64,
}

impl PreciseSum {
    pub(crate) fn add(&mut self, x: f64) {
        let sum = self.high + x;
        let part = sum - self.high;
        self.low += (self.high - (sum - part)) + (x - part);
        self.high = sum;
    }

    pub(crate) fn value(self) -> f64 {
        self.high + self.low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_number_survives_large_ones() {
        let mut sum = PreciseSum::default();
        for x in [1e18, 1.0, 0.25, -1e18] {
            sum.add(x);
        }
        assert_eq!(sum.value(), 1.25);
    }
}
