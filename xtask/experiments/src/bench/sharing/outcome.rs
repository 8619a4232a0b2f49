//! What came of one data set in one run, and how it is measured.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};

use super::data::{Contents, is_common};
use crate::bench::memory::buffer::Random;

/// Longest wait for pages to be merged.
const TIMEOUT: Duration = Duration::from_secs(120);

/// What came of one data set in one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// When nearly all was merged that could be.
    pub(crate) converged: Spent,
    /// Pages that were merged by then.
    pub(crate) merged: u64,
    /// One more pass over unchanged memory.
    pub(crate) second_pass: Spent,
    /// Bytes saved at the end, less those of all that is remembered for it.
    pub(crate) saved: i64,
    /// The median time that a write to a merged page takes.
    pub(crate) broken: Duration,
}

/// What something took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    /// CPU time of all threads that had to do with it.
    pub(crate) cpu: Duration,
    pub(crate) elapsed: Duration,
}

/// Measures what something takes.
pub(crate) struct Meter<C> {
    cpu: C,
    before: Duration,
    start: Instant,
}

impl<C: Fn() -> Result<Duration>> Meter<C> {
    /// Starts to count what `cpu` counts.
    pub(crate) fn start(cpu: C) -> Result<Self> {
        Ok(Self { before: cpu()?, cpu, start: Instant::now() })
    }

    pub(crate) fn spent(&self) -> Result<Spent> {
        let elapsed = self.start.elapsed();
        Ok(Spent { cpu: (self.cpu)()?.saturating_sub(self.before), elapsed })
    }
}

/// CPU time of this process, all threads, in the kernel and out of it.
pub(crate) fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Tells when merging has come to its end: 99 % of what can be merged is, or two passes in a row
/// found nothing new.
///
/// The last pages, which a random order or a race left out, would cost a pass each.
pub(crate) struct Convergence {
    mergeable: u64,
    best: u64,
    /// Passes that were complete when something was last found.
    passes: u64,
    end: Instant,
}

impl Convergence {
    pub(crate) fn new(mergeable: u64, passes: u64) -> Self {
        Self { mergeable, best: 0, passes, end: Instant::now() + TIMEOUT }
    }

    /// Whether that is so, with `merged` pages after `passes` passes.
    pub(crate) fn is_reached(&mut self, merged: u64, passes: u64) -> Result<bool> {
        if merged > self.best {
            (self.best, self.passes) = (merged, passes);
        }
        ensure!(
            Instant::now() < self.end,
            "after {TIMEOUT:?} {merged} of {} pages are merged",
            self.mergeable
        );
        // The pass in which something was found counts for neither of the two.
        Ok(merged * 100 >= self.mergeable * 99 || passes > self.passes + 2)
    }
}

/// Merged pages that are written to, each once.
const BREAKS: usize = 512;

/// The median time that `write` takes for pages that the other VM has as well, or that are zeros.
pub(super) fn median(
    contents: &Contents,
    mut write: impl FnMut(u64) -> Result<Duration>,
) -> Result<Duration> {
    let mut common: Vec<u64> =
        (0..).zip(contents).filter(|(_, content)| is_common(**content)).map(|(ppn, _)| ppn).collect();
    Random(1).shuffle(&mut common);
    let mut times = common.into_iter().take(BREAKS).map(&mut write).collect::<Result<Vec<_>>>()?;
    times.sort_unstable();
    times.get(times.len() / 2).copied().context("no page of the data set is common")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_ends_when_nearly_all_is_merged_or_nothing_more_is_found() {
        let mut convergence = Convergence::new(1000, 7);
        for (merged, passes) in [(0, 7), (0, 8), (500, 9), (500, 11), (989, 11), (989, 13)] {
            assert!(!convergence.is_reached(merged, passes).unwrap(), "{merged} {passes}");
        }
        assert!(convergence.is_reached(989, 14).unwrap());
        assert!(convergence.is_reached(990, 11).unwrap());
    }

    #[test]
    fn a_meter_counts_cpu_time() {
        let meter = Meter::start(|| Ok(process_cpu())).unwrap();
        while meter.spent().unwrap().cpu < Duration::from_millis(2) {}
        assert!(meter.spent().unwrap().elapsed > Duration::ZERO);
    }
}
