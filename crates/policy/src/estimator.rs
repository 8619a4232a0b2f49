//! The memory that a VM actively uses, from random samples (Waldspurger 2002, section 5.3).
//!
//! In each period a random part of the VM's memory is unmapped, and the touches are counted. Three
//! averages follow from the counts, and the greatest of them counts: memory is given fast and taken
//! slowly.
//!
//! | average | half-life | gain | after a step up | noise of 100 samples |
//! |---|---|---|---|---|
//! | slow | 4 periods: 60 s | 0.16 | 16 % in one period, 91 % in 14 | 1.5 % |
//! | fast | 1 period: 15 s | 0.5 | 50 % in one period, 94 % in 4 | 2.9 % |
//! | fast, with the period under way | | 0.5 | 50 % as soon as the pages are touched | 2.9 % |
//!
//! The paper prints no gains. Ours come from half-lives, `gain = 1 - 2^(-elapsed / half-life)`, and
//! half-lives come from the period: with shorter periods the estimate follows faster, and its noise
//! depends on the number of samples as before. A sample of `n` from a VM whose active fraction is
//! `f` has the standard deviation `sqrt(f (1 - f) / n)`: 5 % of memory at worst with the paper's
//! 100. An average with gain `g` keeps `sqrt(g / (2 - g))` of it: the noise in the table.
//! [`Estimator::SLOW_PERIODS`] and [`Estimator::FAST_PERIODS`] say what breaks on either side. The
//! greatest of several noisy numbers lies above their mean, here by less than 2 % of memory: this
//! error leaves memory where it is.
//!
//! **Large chunks.** A chunk that the kernel serves as a whole is sampled as a whole, and one touch
//! anywhere in its 2 MiB touches it. An idle guest touches nearly all chunks in a period, but few
//! of their pages. So pages inside some of the touched chunks are watched for the rest of the
//! period. The touched part of those pages ([`Sample::inside`]) is taken to hold for all touched
//! chunks.
//!
//! The averages are of pages, not of the paper's fraction of the VM's memory: a balloon that
//! shrinks the memory of a VM must not seem to shrink its use.

use std::time::Duration;

use plimsoll_units::{CHUNK_PAGES, Pages};

/// Standard deviations to either side that hold 90 % of a normal distribution.
const Z: f64 = 1.645;

/// Samples of one size: chunks that the kernel serves as a whole, or single pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stratum {
    /// The number of chunks or pages to choose from.
    pub population: u64,
    /// The number that was chosen, each with the same chance.
    pub sampled: u64,
    /// The number of sampled ones that were touched since. More than `sampled` counts as all.
    pub touched: u64,
}

/// The samples of a period so far.
///
/// The two sizes are strata, each with a population of its own: ten chunks and ten pages are twenty
/// samples, but the ten chunks may represent most of the VM. A touched chunk counts with all its
/// pages, since it can only be taken whole. Its idle pages show once it has been broken into small
/// pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Large chunks.
    pub chunks: Stratum,
    /// Pages held in small chunks.
    pub pages: Stratum,
    /// Pages of touched large chunks, without the page of the first touch. The population is not
    /// used.
    pub inside: Stratum,
    /// Pages that faults brought in during the period. No sample could contain them, and all of
    /// them were touched.
    pub arrived: Pages,
}

/// A VM's averages over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimator {
    period: Duration,
    /// The slow and the fast average; `None` until a period has ended.
    averages: Option<(Average, Average)>,
    density: Density,
}

/// The estimate of a VM's active memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The slow average.
    pub slow: Pages,
    /// The fast average.
    pub fast: Pages,
    /// The fast average with the samples of the period under way.
    pub now: Pages,
    /// The margin around the greatest average that contains the truth with 90 % probability. It
    /// covers chance only, not changes of the VM since.
    pub margin: Pages,
}

impl Estimate {
    /// The greatest of the three averages.
    pub fn active(&self) -> Pages {
        self.slow.max(self.fast).max(self.now)
    }
}

impl Default for Estimator {
    /// An estimator for periods of [`Estimator::PERIOD`].
    fn default() -> Self {
        Self::new(Self::PERIOD)
    }
}

impl Estimator {
    /// The default period. The paper has 30 s (Waldspurger 2002, section 5.3), when a page taken
    /// wrongly cost a disk's 10 ms. If longer, memory follows a change of loads late: desktops that
    /// wake in turn (`scenarios/vdi-morning.toml`) swap 60 times as much at 30 s. If shorter, a VM
    /// that pauses for a minute loses its working set, and each VM costs the host more: at 15 s,
    /// seven samples a second.
    pub const PERIOD: Duration = Duration::from_secs(15);
    /// The default number of samples in a period (Waldspurger 2002, section 5.3).
    pub const SAMPLES: u32 = 100;
    /// The slow average's half-life. If longer, an idle VM keeps other VMs from its memory: at four
    /// periods half of it is free after a minute. If shorter, a VM that pauses for a minute loses
    /// its working set, and noise decides which VM pays the tax.
    pub const SLOW_PERIODS: u32 = 4;
    /// The fast average's half-life. If longer, a VM that wakes up waits for its due: at one period
    /// 94 % of its use is seen after four. If shorter, the greatest of three averages is a single
    /// sample's noise.
    pub const FAST_PERIODS: u32 = 1;

    /// An estimator without samples, for periods of `period`, which is not zero.
    pub fn new(period: Duration) -> Self {
        Self { period, averages: None, density: Density::default() }
    }

    fn slow(&self) -> Duration {
        self.period.saturating_mul(Self::SLOW_PERIODS)
    }

    fn fast(&self) -> Duration {
        self.period.saturating_mul(Self::FAST_PERIODS)
    }

    /// Ends a period of `elapsed`, in which the VM ran and `sample` was seen. A period without
    /// samples shows only the pages that arrived.
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

    /// The estimate `elapsed` into a period with the samples `so_far`. Between periods `so_far` has
    /// populations and no samples. A VM without samples for a whole period is taken to use all that
    /// it holds.
    pub fn estimate(&self, elapsed: Duration, so_far: &Sample) -> Estimate {
        let held = so_far.held();
        let Some((slow, fast)) = self.averages else {
            let all = whole(held);
            return Estimate { slow: all, fast: all, now: all, margin: all };
        };
        // Untouched pages may still be touched: the sample so far is too low rather than too high,
        // and can only raise the greatest average. The elapsed part of the period decides only the
        // weight of the next one.
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
    /// The pages that could be active.
    fn held(&self) -> f64 {
        count(self.chunks.population) * count(CHUNK_PAGES)
            + count(self.pages.population)
            + count(self.arrived.0)
    }

    /// The active pages by this sample, where `density` of a touched chunk's pages are active;
    /// `None` if the sample is empty. A size without samples is taken to be as active as the other.
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

    /// The variance of [`Self::fraction`] after Agresti and Coull: unlike the plain variance it is
    /// not 0 where none or all were touched. It falls with the sampled part of the population, and
    /// is 0 where all of it was sampled.
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

/// The active part of a touched large chunk, from pages watched inside some chunks. It changes more
/// slowly than touches do, so all observations count, with the slow average's half-life.
///
/// A touched chunk is taken to be active as a whole, until watched pages show less.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Density {
    watched: f64,
    touched: f64,
}

impl Density {
    /// Pages that count as watched and touched beside the observed ones. If fewer, one chunk
    /// decides for all. If more, an idle VM is believed idle late.
    const DOUBT: f64 = 4.0;

    /// Adds the new observations; `keep` of the earlier ones still counts.
    fn with(self, inside: Stratum, keep: f64) -> Self {
        let watched = count(inside.sampled);
        let touched = count(inside.touched).min(watched);
        Self { watched: self.watched * keep + watched, touched: self.touched * keep + touched }
    }

    /// The page of the first touch is certainly active.
    fn fraction(self) -> f64 {
        let others = (self.touched + Self::DOUBT) / (self.watched + Self::DOUBT);
        others + (1.0 - others) / count(CHUNK_PAGES)
    }

    /// Its variance, after Agresti and Coull, as far as watched pages decide: a chunk that counts
    /// as a whole leaves nothing to chance.
    fn variance(self) -> f64 {
        let n = self.watched + Z * Z;
        let p = (self.touched + Z * Z / 2.0) / n;
        p * (1.0 - p) / n * self.watched / (self.watched + Self::DOUBT)
    }
}

/// A number of pages with its variance.
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

/// The weight of a period's observation with which earlier observations fade by half in every
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
mod tests;
