//! The part of the time that a VM is stalled for memory, in the terms of Linux's PSI
//! (Documentation/accounting/psi.rst).
//!
//! A VMM counts the time in which some of its VM, and in which all of it, waits for memory. These
//! counters yield averages over the last 10, 60 and 300 s. As in PSI they are exponentially
//! weighted: a reading that is one window old counts `1/e` of a new one. So a VM that stands still
//! reaches 50 % of the shortest average after 7 s, and 98 % after 40 s.
//!
//! The counters are claims. A counter that falls counts as unchanged, and no counter grows by more
//! than the elapsed time. A VMM that lies can make its VM seem stalled, as a guest can by waiting,
//! and no more than that.

use std::time::Duration;

/// Windows of the averages, in seconds: those of PSI.
const WINDOWS: [f64; 3] = [10.0, 60.0, 300.0];
/// A VM stands still from this part of the last 10 s on. If less, a VM that swaps much is called
/// stalled. If more, a VM that stands still is seen after more than 10 s.
const STANDS_STILL: f64 = 0.5;
/// A VM goes on below this part. If nearer to [`STANDS_STILL`], a VM about there is reported again
/// and again.
const GOES_ON: f64 = 0.2;

/// The averages and the total of one counter.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StallMeter {
    total: Duration,
    /// The part of the time between the last two readings.
    latest: f64,
    averages: [f64; 3],
}

impl StallMeter {
    /// Takes a reading of the counter, `elapsed` after the one before. Returns its growth, at most
    /// `elapsed`.
    ///
    /// Growth beyond `elapsed` counts with the next reading: two readings may arrive closer to each
    /// other than the two moments at which the counter was read.
    fn observe(&mut self, elapsed: Duration, counter: Duration) -> Duration {
        let grown = counter.saturating_sub(self.total).min(elapsed);
        self.total += grown;
        if elapsed > Duration::ZERO {
            let part = grown.as_secs_f64() / elapsed.as_secs_f64();
            self.latest = part;
            for (average, window) in self.averages.iter_mut().zip(WINDOWS) {
                let kept = (-elapsed.as_secs_f64() / window).exp();
                *average = *average * kept + part * (1.0 - kept);
            }
        }
        grown
    }

    /// The total time stalled.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// The part of the time between the last two readings, from 0 to 1.
    pub fn latest(&self) -> f64 {
        self.latest
    }

    /// Parts of the last 10, 60 and 300 s, from 0 to 1.
    pub fn averages(&self) -> [f64; 3] {
        self.averages
    }
}

/// A VM's stalls: both counters, and whether it stands still.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stalls {
    some: StallMeter,
    full: StallMeter,
    stands_still: bool,
}

impl Stalls {
    /// The stalls of a VM whose counters read `some` and `full` at first.
    pub fn new(some: Duration, full: Duration) -> Self {
        let meter = |total| StallMeter { total, ..StallMeter::default() };
        Self { some: meter(some), full: meter(full.min(some)), stands_still: false }
    }

    /// Takes a reading of both counters, `elapsed` after the one before. Returns the growth of
    /// each.
    pub fn observe(&mut self, elapsed: Duration, some: Duration, full: Duration) -> (Duration, Duration) {
        let some = self.some.observe(elapsed, some);
        let full = self.full.observe(elapsed, full.min(self.some.total));
        let [last, ..] = self.full.averages;
        self.stands_still = last > if self.stands_still { GOES_ON } else { STANDS_STILL };
        (some, full)
    }

    /// Time in which at least one of the VM's faults waited for memory.
    pub fn some(&self) -> StallMeter {
        self.some
    }

    /// Time in which all of the VM waited for memory.
    pub fn full(&self) -> StallMeter {
        self.full
    }

    /// Whether the VM stands still for want of memory: more than half of the last 10 s, until it is
    /// less than a fifth.
    pub fn stands_still(&self) -> bool {
        self.stands_still
    }
}

/// Returns the averages of a host: the mean of its VMs' averages, with the same weight for each VM,
/// or 0 without VMs. A host has no counter of its own, because VMs report at different moments.
pub fn host_averages(vms: impl IntoIterator<Item = StallMeter>) -> [f64; 3] {
    let (mut sums, mut count) = ([0.0; 3], 0.0);
    for meter in vms {
        count += 1.0;
        sums.iter_mut().zip(meter.averages).for_each(|(sum, average)| *sum += average);
    }
    if count > 0.0 { sums.map(|sum| sum / count) } else { sums }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A VM that is stalled for a part of each of `seconds` seconds.
    fn run(stalls: &mut Stalls, seconds: u32, part: f64) {
        for _ in 0..seconds {
            let grows = SECOND.mul_f64(part);
            stalls.observe(SECOND, stalls.some.total + grows, stalls.full.total + grows);
        }
    }

    #[test]
    fn averages_are_those_of_psi() {
        let mut stalls = Stalls::default();
        run(&mut stalls, 10, 1.0);
        let expected = [10.0f64, 60.0, 300.0].map(|window| 1.0 - (-10.0 / window).exp());
        for (average, expected) in stalls.full().averages().into_iter().zip(expected) {
            assert!((average - expected).abs() < 1e-9, "{average} {expected}");
        }
        assert_eq!((stalls.some().total(), stalls.full().total()), (10 * SECOND, 10 * SECOND));
        let mut once = Stalls::default();
        once.observe(10 * SECOND, 10 * SECOND, 10 * SECOND);
        assert!((once.full().averages()[0] - expected[0]).abs() < 1e-9, "however often it is read");
    }

    #[test]
    fn a_vm_stands_still_after_seven_seconds_and_until_little_of_it_is_left() {
        let mut stalls = Stalls::default();
        run(&mut stalls, 6, 1.0);
        assert!(!stalls.stands_still());
        run(&mut stalls, 1, 1.0);
        assert!(stalls.stands_still());
        run(&mut stalls, 60, 0.4);
        assert!(stalls.stands_still(), "40 % is neither");
        run(&mut stalls, 10, 0.0);
        assert!(!stalls.stands_still());
        run(&mut stalls, 60, 0.4);
        assert!(!stalls.stands_still());
    }

    #[test]
    fn a_claim_counts_for_no_more_than_the_time_that_has_passed() {
        let mut stalls = Stalls::new(SECOND, 9 * SECOND);
        assert_eq!(stalls.full().total(), SECOND, "full is part of some");
        assert_eq!(stalls.observe(SECOND, Duration::MAX, Duration::MAX), (SECOND, SECOND));
        assert_eq!(stalls.observe(SECOND, Duration::ZERO, Duration::ZERO), (Duration::ZERO, Duration::ZERO));
        assert_eq!(stalls.observe(Duration::ZERO, Duration::MAX, Duration::ZERO).0, Duration::ZERO);
    }

    #[test]
    fn readings_that_come_early_lose_nothing() {
        let mut stalls = Stalls::default();
        stalls.observe(SECOND * 9 / 10, SECOND, SECOND);
        stalls.observe(SECOND * 11 / 10, 2 * SECOND, 2 * SECOND);
        assert_eq!(stalls.full().total(), 2 * SECOND);
    }

    #[test]
    fn a_host_is_stalled_as_its_vms_are_in_the_mean() {
        assert_eq!(host_averages([]), [0.0; 3]);
        let meter = |average| StallMeter { averages: [average; 3], ..StallMeter::default() };
        assert_eq!(host_averages([meter(1.0), meter(0.0), meter(0.5), meter(0.5)]), [0.5; 3]);
    }

    proptest! {
        #[test]
        fn averages_stay_parts_and_full_within_some(
            readings in prop::collection::vec((0u64..100_000, any::<u64>(), any::<u64>()), 1..50)
        ) {
            let mut stalls = Stalls::default();
            for (elapsed, some, full) in readings {
                let before = stalls;
                let elapsed = Duration::from_millis(elapsed);
                stalls.observe(elapsed, Duration::from_micros(some), Duration::from_nanos(full));
                for meter in [stalls.some(), stalls.full()] {
                    prop_assert!(meter.averages().iter().all(|average| (0.0..=1.0).contains(average)));
                }
                prop_assert!(stalls.full().total() <= stalls.some().total());
                prop_assert!(stalls.some().total() <= before.some().total() + elapsed);
                prop_assert!(stalls.full().total() >= before.full().total());
            }
        }
    }
}
