use std::time::Duration;

use plimsoll_policy::{Estimate, Estimator, Sample, Stratum};
use plimsoll_units::Pages;

use crate::memory::Memory;
use crate::random::Random;

/// The sampling of one VM: random pages are chosen at the start of each period, and the touches
/// counted until its end (Waldspurger 2002, section 5.3). Pages are sampled singly, as in a VM
/// under pressure; chunks would read higher.
#[derive(Clone, Debug)]
pub(crate) struct Sampler {
    estimator: Estimator,
    random: Random,
    period: Duration,
    sampled: u32,
    /// Where in the order of all pages, the most active first, the chosen ones lie: from 0 to 1,
    /// sorted.
    places: Vec<f64>,
    /// Since the period began, in the VM's own time.
    elapsed: Duration,
    arrived: Pages,
    /// The largest part of what could be sampled that has been active in this period.
    active: f64,
}

impl Sampler {
    pub(crate) fn new(random: Random, period: Duration, sampled: u32) -> Self {
        let mut sampler = Self {
            estimator: Estimator::new(period),
            random,
            period,
            sampled,
            places: Vec::new(),
            elapsed: Duration::ZERO,
            arrived: Pages::ZERO,
            active: 0.0,
        };
        sampler.begin();
        sampler
    }

    fn begin(&mut self) {
        let random = &mut self.random;
        self.places = (0..self.sampled).map(|_| random.unit()).collect();
        self.places.sort_unstable_by(f64::total_cmp);
        (self.elapsed, self.arrived, self.active) = (Duration::ZERO, Pages::ZERO, 0.0);
    }

    /// `elapsed` has passed, in which faults brought in `arrived` pages. A VM that `waits` does not
    /// run, and time that it does not run does not count.
    pub(crate) fn observe(&mut self, memory: &Memory, elapsed: Duration, arrived: Pages, waits: bool) {
        self.arrived += arrived;
        let population = self.population(memory);
        if population > Pages::ZERO {
            // What arrived in this period was not there to be sampled; it is active as long as
            // anything is.
            let old = memory.active.saturating_sub(self.arrived);
            self.active = self.active.max(ratio(old, population));
        }
        if waits {
            return;
        }
        self.elapsed += elapsed;
        if self.elapsed >= self.period {
            let sample = self.sample(memory);
            self.estimator.end_period(self.elapsed, &sample);
            self.begin();
        }
    }

    fn population(&self, memory: &Memory) -> Pages {
        memory.held().saturating_sub(self.arrived)
    }

    fn sample(&self, memory: &Memory) -> Sample {
        let population = self.population(memory).0;
        let touched = self.places.partition_point(|&place| place < self.active);
        let pages = Stratum {
            population,
            sampled: u64::from(self.sampled).min(population),
            touched: u64::try_from(touched).unwrap_or(u64::MAX).min(population),
        };
        Sample { pages, arrived: self.arrived.min(memory.held()), ..Sample::default() }
    }

    /// The estimate as of now.
    pub(crate) fn estimate(&self, memory: &Memory) -> Estimate {
        if self.elapsed.is_zero() {
            let population = memory.held().0;
            let nothing = Stratum { population, sampled: 0, touched: 0 };
            let sample = Sample { pages: nothing, ..Sample::default() };
            return self.estimator.estimate(Duration::ZERO, &sample);
        }
        self.estimator.estimate(self.elapsed, &self.sample(memory))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a part of a sample")]
pub(crate) fn ratio(part: Pages, whole: Pages) -> f64 {
    part.0 as f64 / whole.0 as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_comes_near_the_truth_and_not_to_it() {
        let memory = Memory { active: Pages(20_000), cold: Pages(45_536), ..Memory::default() };
        let mut seen = Vec::new();
        for seed in 0..20 {
            let mut sampler = Sampler::new(Random::new(seed, 0), Duration::from_secs(30), 100);
            for _ in 0..600 {
                sampler.observe(&memory, Duration::from_secs(1), Pages::ZERO, false);
            }
            seen.push(sampler.estimate(&memory).active().0);
        }
        let mean = seen.iter().sum::<u64>() / 20;
        assert!((19_000..23_000).contains(&mean), "{mean} {seen:?}");
        assert!(seen.iter().any(|s| s.abs_diff(mean) > 100), "{seen:?}");
    }

    #[test]
    fn a_vm_that_waits_is_not_idle_for_it() {
        let memory = Memory { cold: Pages(1000), ..Memory::default() };
        let mut sampler = Sampler::new(Random::new(1, 0), Duration::from_secs(30), 100);
        for _ in 0..100 {
            sampler.observe(&memory, Duration::from_secs(1), Pages::ZERO, true);
        }
        assert_eq!(sampler.estimate(&memory).active(), Pages(1000));
    }
}
