//! How much memory a VM actively uses, from random samples of it (Waldspurger 2002, section 5.3).
//!
//! In each period some of the VM's memory, chosen at random, is made unmapped, and the touches are
//! counted. Three averages follow from it, and the greatest of them counts: memory is given fast
//! and taken slowly.
//!
//! | average | half-life | gain | after a step up | noise of 100 samples |
//! |---|---|---|---|---|
//! | slow | 4 periods: 60 s | 0.16 | 16 % in one period, 91 % in 14 | 1.5 % |
//! | fast | 1 period: 15 s | 0.5 | 50 % in one period, 94 % in 4 | 2.9 % |
//! | fast, with the period under way | | 0.5 | 50 % as soon as the pages are touched | 2.9 % |
//!
//! The paper prints no gains. Ours come from half-lives, `gain = 1 - 2^(-elapsed / half-life)`, and
//! those from the period: whoever wants the estimate to follow faster makes periods shorter, and
//! its noise stays what the number of samples makes it. A sample of `n` from a VM of which the
//! fraction `f` is active has the standard deviation `sqrt(f (1 - f) / n)`: 5 % of memory at worst
//! with the paper's 100. An average with gain `g` keeps `sqrt(g / (2 - g))` of it, which is the
//! noise in the table; [`Estimator::SLOW_PERIODS`] and [`Estimator::FAST_PERIODS`] say what breaks
//! on either side. The greatest of several noisy numbers lies above their mean, here by less than 2
//! % of memory: an error towards leaving memory where it is.
//!
//! **Large chunks.** A chunk that the kernel serves as a whole is sampled as a whole, and one touch
//! anywhere in its 2 MiB touches it. Of an idle guest nearly all chunks are touched in a period, and
//! few of their pages. So some of the touched chunks are looked into: pages inside are watched for
//! the rest of the period, and the part of them that is touched ([`Sample::inside`]) is taken to
//! hold for all touched chunks.
//!
//! The averages are of pages, not of the paper's fraction of the VM's memory: a balloon that
//! shrinks what a VM holds must not seem to shrink what it uses.

use std::time::Duration;

use plimsoll_units::{CHUNK_PAGES, Pages};

/// Standard deviations to either side that hold 90 % of a normal distribution.
const Z: f64 = 1.645;

/// Samples of one size: chunks that the kernel serves as a whole, or single pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stratum {
    /// How many there were to choose from.
    pub population: u64,
    /// How many were chosen, each with the same chance.
    pub sampled: u64,
    /// How many of those were touched since. More than `sampled` counts as all.
    pub touched: u64,
}

/// What a period's samples have shown so far.
///
/// The two sizes are strata, each of which stands for its own population: ten chunks and ten pages
/// are twenty samples, but the ten chunks may speak for most of the VM. A touched chunk counts with
/// all its pages, since it can only be taken whole; what is idle within it shows once it has been
/// broken into small pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Large chunks.
    pub chunks: Stratum,
    /// Pages held in small chunks.
    pub pages: Stratum,
    /// Pages of touched large chunks, other than the one of the first touch. The population is not
    /// used.
    pub inside: Stratum,
    /// Pages that faults brought in during the period. No sample could contain them, and they were
    /// touched for certain.
    pub arrived: Pages,
}

/// A VM's averages over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimator {
    period: Duration,
    /// Slow and fast; `None` until a period has ended.
    averages: Option<(Average, Average)>,
    density: Density,
}

/// How much of a VM's memory is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The slow average.
    pub slow: Pages,
    /// The fast average.
    pub fast: Pages,
    /// The fast average with what the period under way has shown.
    pub now: Pages,
    /// The truth lies within this of the greatest average with 90 % probability, as far as chance
    /// decides: how the VM has changed since is not in it.
    pub margin: Pages,
}

impl Estimate {
    /// The greatest of the three.
    pub fn active(&self) -> Pages {
        self.slow.max(self.fast).max(self.now)
    }
}

impl Default for Estimator {
    /// One for periods of [`Estimator::PERIOD`].
    fn default() -> Self {
        Self::new(Self::PERIOD)
    }
}

impl Estimator {
    /// How long a period is by default. The paper has 30 s (Waldspurger 2002, section 5.3), when a
    /// page taken wrongly cost a disk's 10 ms. Longer, and memory follows a change of loads late:
    /// desktops that wake in turn (`scenarios/vdi-morning.toml`) swap 60 times as much at 30 s.
    /// Shorter, and a VM that pauses for a minute loses its working set, and each VM costs the host
    /// more: at 15 s, seven samples a second.
    pub const PERIOD: Duration = Duration::from_secs(15);
    /// How many samples a period has by default (Waldspurger 2002, section 5.3).
    pub const SAMPLES: u32 = 100;
    /// The slow average's half-life. Longer, and an idle VM keeps others from memory: at four
    /// periods half of it is free after a minute. Shorter, and a VM that pauses for a minute
    /// loses its working set, and noise decides who pays the tax.
    pub const SLOW_PERIODS: u32 = 4;
    /// The fast average's half-life. Longer, and a VM that wakes up waits for what it is entitled
    /// to: at one period 94 % is seen after four. Shorter, and the greatest of three averages is a
    /// single sample's noise.
    pub const FAST_PERIODS: u32 = 1;

    /// One that knows nothing yet, for periods of this length, which is not zero.
    pub fn new(period: Duration) -> Self {
        Self { period, averages: None, density: Density::default() }
    }

    fn slow(&self) -> Duration {
        self.period.saturating_mul(Self::SLOW_PERIODS)
    }

    fn fast(&self) -> Duration {
        self.period.saturating_mul(Self::FAST_PERIODS)
    }

    /// A period of `elapsed` has ended, in which the VM ran and `sample` was seen. One without
    /// samples teaches nothing but what arrived.
    pub fn end_period(&mut self, elapsed: Duration, sample: &Sample) {
        self.density = self.density.with(sample.inside, 1.0 - gain(elapsed, self.slow()));
        let Some(seen) = sample.active(self.density) else {
            return;
        };
        self.averages = Some(match self.averages {
            None => (seen, seen),
            Some((slow, fast)) => {
                (slow.with(seen, gain(elapsed, self.slow())), fast.with(seen, gain(elapsed, self.fast())))
            }
        });
    }

    /// The estimate `elapsed` into a period that has shown `so_far`; between periods that is a
    /// sample of nothing, with what there is to sample. A VM that nobody has looked at for a whole
    /// period is taken to use all that it holds.
    pub fn estimate(&self, elapsed: Duration, so_far: &Sample) -> Estimate {
        let held = so_far.held();
        let Some((slow, fast)) = self.averages else {
            let all = whole(held);
            return Estimate { slow: all, fast: all, now: all, margin: all };
        };
        // Pages not touched yet may still be: what is seen so far is too low rather than too high,
        // and can only raise the greatest average. How much of the period is over decides nothing
        // but how much the next one will count.
        let weight = gain(elapsed.max(self.period), self.fast());
        let blended =
            so_far.active(self.density.with(so_far.inside, 1.0)).map_or(fast, |seen| fast.with(seen, weight));
        let arrived = Average { pages: count(so_far.arrived.0), variance: 0.0 };
        let now = if arrived.pages > blended.pages { arrived } else { blended };
        let greatest = [slow, fast, now].into_iter().fold(now, |a, b| if b.pages > a.pages { b } else { a });
        Estimate {
            slow: whole(slow.pages.min(held)),
            fast: whole(fast.pages.min(held)),
            now: whole(now.pages.min(held)),
            margin: whole((Z * greatest.variance.sqrt()).min(held)),
        }
    }
}

impl Sample {
    /// Pages that were there to be active.
    fn held(&self) -> f64 {
        count(self.chunks.population) * count(CHUNK_PAGES)
            + count(self.pages.population)
            + count(self.arrived.0)
    }

    /// Active pages as this sample shows them, where `density` of a touched chunk's pages are
    /// active; `None` if it is empty. Where one size was not sampled, it is taken to be as active
    /// as the other.
    fn active(&self, density: Density) -> Option<Average> {
        let chunks = self.chunks.fraction().map(|touched| touched * density.fraction());
        let pages = self.pages.fraction();
        let in_chunks = count(self.chunks.population) * count(CHUNK_PAGES);
        let in_pages = count(self.pages.population);
        let touched = self.chunks.fraction().unwrap_or_default();
        let of_chunks =
            self.chunks.variance() * density.fraction().powi(2) + density.variance() * touched.powi(2);
        Some(Average {
            pages: count(self.arrived.0) + in_chunks * chunks.or(pages)? + in_pages * pages.or(chunks)?,
            variance: in_chunks.powi(2) * of_chunks + in_pages.powi(2) * self.pages.variance(),
        })
    }
}

impl Stratum {
    fn fraction(&self) -> Option<f64> {
        (self.sampled > 0).then(|| count(self.touched.min(self.sampled)) / count(self.sampled))
    }

    /// The variance of [`Self::fraction`] after Agresti and Coull: unlike the plain one it is not 0
    /// where none or all were touched. Less, the more of the population was sampled, and 0 where
    /// all of it was.
    fn variance(&self) -> f64 {
        let sampled = count(self.sampled.min(self.population));
        let touched = count(self.touched).min(sampled);
        let n = sampled + Z * Z;
        let p = (touched + Z * Z / 2.0) / n;
        let left_out = if self.population > 1 {
            (count(self.population) - sampled) / (count(self.population) - 1.0)
        } else {
            1.0 - sampled
        };
        p * (1.0 - p) / n * left_out.clamp(0.0, 1.0)
    }
}

/// What part of a touched large chunk is active, from pages watched inside some. It changes more
/// slowly than what is touched, so all that was seen counts, with the slow average's half-life.
///
/// A touched chunk is taken to be active as a whole, until pages that were watched say otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Density {
    watched: f64,
    touched: f64,
}

impl Density {
    /// Pages that count as watched and touched beside those that were. Fewer, and one chunk decides
    /// for all; more, and an idle VM is believed idle late.
    const DOUBT: f64 = 4.0;

    /// With what was seen since, while `keep` of what was seen before still counts.
    fn with(self, inside: Stratum, keep: f64) -> Self {
        let watched = count(inside.sampled);
        let touched = count(inside.touched).min(watched);
        Self { watched: self.watched * keep + watched, touched: self.touched * keep + touched }
    }

    /// The page of the first touch is active for certain.
    fn fraction(self) -> f64 {
        let others = (self.touched + Self::DOUBT) / (self.watched + Self::DOUBT);
        others + (1.0 - others) / count(CHUNK_PAGES)
    }

    /// Its variance, after Agresti and Coull, as far as what was watched decides: a chunk that
    /// counts as a whole leaves nothing to chance.
    fn variance(self) -> f64 {
        let n = self.watched + Z * Z;
        let p = (self.touched + Z * Z / 2.0) / n;
        p * (1.0 - p) / n * self.watched / (self.watched + Self::DOUBT)
    }
}

/// A number of pages, with the variance that chance gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Average {
    pages: f64,
    variance: f64,
}

impl Average {
    /// The average with one more observation, independent of those before.
    fn with(self, seen: Self, gain: f64) -> Self {
        let keep = 1.0 - gain;
        Self {
            pages: self.pages * keep + seen.pages * gain,
            variance: self.variance * keep * keep + seen.variance * gain * gain,
        }
    }
}

/// The weight of a period's observation that lets those before it fade by half in every
/// `half_life`.
fn gain(period: Duration, half_life: Duration) -> f64 {
    1.0 - 0.5f64.powf(period.as_secs_f64() / half_life.as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn count(n: u64) -> f64 {
    n as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative; saturates")]
fn whole(pages: f64) -> Pages {
    Pages(pages.round() as u64)
}

#[cfg(test)]
#[path = "estimator_tests.rs"]
mod tests;
