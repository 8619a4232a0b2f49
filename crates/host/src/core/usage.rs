use std::time::Duration;

use plimsoll_policy::{Estimate, Estimator, Sample, Stratum};
use plimsoll_protocol::control::{SampleFacts, Sampled, SamplingFacts};
use plimsoll_units::Pages;

/// What one VM's samples have shown over time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    estimator: Estimator,
    /// The period that the VMM is in, as far as it has said.
    period: u64,
    /// A period with samples has ended.
    sampled: bool,
    /// What it had when it last waited for memory, less what has faded since.
    pressed: f64,
}

/// In which what a VM had when it waited counts half as used. Longer, and one that has finished keeps others from memory;
/// shorter, and one that waits now and then loses what it has in between.
const HALF_LIFE: Duration = Duration::from_secs(15);

impl Usage {
    pub(super) fn new(period: Duration) -> Self {
        Self { estimator: Estimator::new(period), period: 0, sampled: false, pressed: 0.0 }
    }

    /// `elapsed` has passed; the VM has `grant`, and `waits` for more or pages for itself because it has waited in vain. Such a
    /// VM is taken to use all that it has: it touches little while it waits, so that samples make it seem idle, and if it could do
    /// without it would not wait. To wait without need gains a hostile guest no more than its shares are worth.
    pub(super) fn press(&mut self, elapsed: Duration, waits: bool, grant: Pages) {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let grant = grant.0 as f64;
        let faded = self.pressed * 0.5f64.powf(elapsed.as_secs_f64() / HALF_LIFE.as_secs_f64());
        self.pressed = if waits { grant } else { faded.min(grant) };
    }

    /// What waiting shows that it uses.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "never negative, bounded by a page count"
    )]
    pub(super) fn pressed(&self) -> Pages {
        Pages(self.pressed as u64)
    }

    /// The VMM has reported. What it says of its last period counts once. Of periods that nobody heard of, because the
    /// daemon was not there, the last one stands for all.
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

    /// Whether there is anything to go by.
    pub(super) fn has_samples(&self) -> bool {
        self.sampled
    }

    /// The estimate for a VM that holds `held` and whose period under way has shown `now`. One that has not been sampled
    /// uses all that it holds.
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
    Sample { chunks: stratum(facts.chunks), pages: stratum(facts.pages), arrived: facts.arrived }
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
    fn who_waits_uses_what_he_has_and_for_a_while_thereafter() {
        let mut usage = Usage::new(PERIOD);
        usage.press(HALF_LIFE, false, Pages(1000));
        assert_eq!(usage.pressed(), Pages::ZERO);
        usage.press(HALF_LIFE, true, Pages(1000));
        assert_eq!(usage.pressed(), Pages(1000));
        usage.press(HALF_LIFE, false, Pages(1000));
        assert_eq!(usage.pressed(), Pages(500));
        usage.press(HALF_LIFE, false, Pages(100));
        assert_eq!(usage.pressed(), Pages(100), "it has no more");
    }

    #[test]
    fn each_period_counts_once_and_the_one_under_way_at_once() {
        let mut usage = Usage::new(PERIOD);
        let active = |usage: &Usage, touched| usage.estimate(&facts(touched), Pages(900)).active();
        assert_eq!((active(&usage, 0), usage.has_samples()), (Pages(900), false), "nobody has looked yet");
        usage.observe(&SamplingFacts { period: 1, ..SamplingFacts::default() });
        assert_eq!(active(&usage, 0), Pages(900));
        let idle = SamplingFacts { period: 2, now: facts(0), last: facts(10) };
        usage.observe(&idle);
        assert_eq!(active(&usage, 0), Pages(100));
        (0..10).for_each(|_| usage.observe(&idle));
        assert_eq!(active(&usage, 0), Pages(100));
        assert_eq!(active(&usage, 50), Pages(300), "half of the step up is seen before its period ends");
        assert_eq!(usage.estimate(&facts(50), Pages(200)).active(), Pages(200));
    }
}
