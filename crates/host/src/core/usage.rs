use std::time::Duration;

use plimsoll_policy::{Estimate, Estimator, Sample, Stratum};
use plimsoll_protocol::control::{SampleFacts, Sampled, SamplingFacts};
use plimsoll_units::Pages;

/// The estimate of one VM's use, by its samples over time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    estimator: Estimator,
    /// The VMM's period, by its last report.
    period: u64,
    /// A period with samples has ended.
    sampled: bool,
}

impl Usage {
    pub(super) fn new(period: Duration) -> Self {
        Self { estimator: Estimator::new(period), period: 0, sampled: false }
    }

    /// Takes a report. The VMM's last period counts once. The last period stands for those that
    /// ended while there was no daemon.
    pub(super) fn observe(&mut self, facts: &SamplingFacts) {
        if facts.period == self.period {
            return;
        }
        self.period = facts.period;
        let last = sample(&facts.last);
        if last.chunks.sampled + last.pages.sampled > 0 {
            self.estimator.end_period(facts.last.elapsed, &last);
            self.sampled = true;
        }
    }

    /// Whether there is a sample.
    pub(super) fn has_samples(&self) -> bool {
        self.sampled
    }

    /// The estimate for a VM that holds `held` and whose period under way has shown `now`. One that
    /// has not been sampled uses all that it holds.
    pub(super) fn estimate(&self, now: &SampleFacts, held: Pages) -> Estimate {
        if !self.sampled {
            return Estimate { slow: held, fast: held, now: held, margin: held };
        }
        let estimate = self.estimator.estimate(now.elapsed, &sample(now));
        // It may have given pages back since they were drawn.
        Estimate {
            slow: estimate.slow.min(held),
            fast: estimate.fast.min(held),
            now: estimate.now.min(held),
            margin: estimate.margin.min(held),
        }
    }
}

fn sample(facts: &SampleFacts) -> Sample {
    Sample {
        chunks: stratum(facts.chunks),
        pages: stratum(facts.pages),
        inside: stratum(facts.inside),
        arrived: facts.arrived,
    }
}

fn stratum(facts: Sampled) -> Stratum {
    Stratum { population: facts.population, sampled: facts.sampled, touched: facts.touched }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(30);

    fn facts(touched: u64) -> SampleFacts {
        let pages = Sampled { population: 1000, sampled: 100, touched };
        SampleFacts { elapsed: PERIOD, pages, ..SampleFacts::default() }
    }

    #[test]
    fn each_period_counts_once_and_the_one_under_way_at_once() {
        let mut usage = Usage::new(PERIOD);
        let active = |usage: &Usage, touched| usage.estimate(&facts(touched), Pages(900)).active();
        assert_eq!(
            (active(&usage, 0), usage.has_samples()),
            (Pages(900), false),
            "no sample has been taken yet"
        );
        usage.observe(&SamplingFacts { period: 1, ..SamplingFacts::default() });
        assert_eq!(active(&usage, 0), Pages(900));
        let idle = SamplingFacts { period: 2, now: facts(0), last: facts(10), ..SamplingFacts::default() };
        usage.observe(&idle);
        assert_eq!(active(&usage, 0), Pages(100));
        (0..10).for_each(|_| usage.observe(&idle));
        assert_eq!(active(&usage, 0), Pages(100));
        assert_eq!(active(&usage, 50), Pages(300), "half of the step up is seen before its period ends");
        assert_eq!(usage.estimate(&facts(50), Pages(200)).active(), Pages(200));
    }
}
