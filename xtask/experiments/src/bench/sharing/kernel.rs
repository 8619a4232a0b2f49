//! What the kernel makes of it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use plimsoll_units::{CHUNK_PAGES, PAGE_SIZE};

use super::data::{self, Contents, Data, Memory};
use super::outcome::{Convergence, Meter, Outcome, Spent, median, process_cpu};
use crate::bench::memory::ksm::Ksm;
use crate::bench::memory::plain::Plain;

/// Time between two looks at its progress. The looks count.
const POLL: Duration = Duration::from_millis(2);

/// Measures KSM on memory of this process.
pub(crate) fn measure(ksm: &Ksm, data: Data, memory: Memory) -> Result<Outcome> {
    let contents = data.contents(memory.chunks * CHUNK_PAGES);
    let vms = contents.iter().map(|contents| fill(contents, memory)).collect::<Result<Vec<_>>>()?;
    let result = merge(ksm, &vms, &contents, data.mergeable(memory.chunks * CHUNK_PAGES));
    drop(vms);
    ksm.unmerge()?;
    result
}

fn merge(ksm: &Ksm, vms: &[Plain], contents: &[Contents], mergeable: u64) -> Result<Outcome> {
    let meter = Meter::start(|| Ok(ksm.cpu()? + process_cpu()))?;
    let resident_before = resident()?;
    // Pages of zeros go, whether KSM counts them or not; others are counted as often as they are
    // mapped.
    let gone = || Ok::<_, anyhow::Error>(resident_before.saturating_sub(resident()?));
    let mut convergence = Convergence::new(mergeable, ksm.counts()?.full_scans);
    vms.iter().try_for_each(Plain::mergeable)?;
    ksm.start()?;
    let merged = loop {
        std::thread::sleep(POLL);
        let counts = ksm.counts()?;
        let merged = counts.merged + gone()?;
        if convergence.is_reached(merged, counts.full_scans)? {
            break merged;
        }
    };
    let converged = meter.spent()?;
    wait_for_scan(ksm)?;
    let second_pass = second_pass(ksm)?;
    ksm.stop()?;
    let counts = ksm.counts()?;
    let uncounted = i64::try_from(gone()?)? - i64::try_from(counts.zeroed)?;
    let saved = counts.profit + uncounted * i64::try_from(PAGE_SIZE)?;
    let broken = broken(&vms[0], &contents[0])?;
    Ok(Outcome { converged, merged, second_pass, saved, broken })
}

fn fill(contents: &Contents, memory: Memory) -> Result<Plain> {
    let plain = Plain::new(memory.chunks, memory.huge_pages)?;
    let offsets = (0..plain.len()).step_by(usize::try_from(PAGE_SIZE)?);
    offsets.zip(contents).try_for_each(|(offset, &content)| plain.fill(offset, &data::page(content)))?;
    Ok(plain)
}

/// Pages of this process that are in memory, the page of zeros left out.
fn resident() -> Result<u64> {
    let path = "/proc/self/statm";
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.with_context(|| format!("no resident pages in {path}"))
}

/// Waits until a scan is complete.
fn wait_for_scan(ksm: &Ksm) -> Result<()> {
    let before = ksm.counts()?.full_scans;
    while ksm.counts()?.full_scans == before {
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn second_pass(ksm: &Ksm) -> Result<Spent> {
    let meter = Meter::start(|| Ok(ksm.cpu()? + process_cpu()))?;
    wait_for_scan(ksm)?;
    meter.spent()
}

/// The time that a write to a merged page takes.
fn broken(vm: &Plain, contents: &Contents) -> Result<Duration> {
    median(contents, |ppn| {
        let offset = usize::try_from(ppn * PAGE_SIZE)?;
        let start = Instant::now();
        vm.write(offset, ppn)?;
        Ok(start.elapsed())
    })
}
