//! How fast free memory that the guest has touched goes back to the host.

use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use plimsoll_lab::workspace::step;
use plimsoll_pmap::{Inflation, PpnRange, Release, ReleaseOutcome};
use plimsoll_units::{CHUNK_PAGES, CHUNK_SIZE, PAGE_SIZE, Pages, Ppn};

use super::goal::Goal;
use super::memory::guest::Guest;
use super::memory::plain::Plain;
use super::memory::processor::{self, Place};
use super::report::{Figure, Report, ratios};

/// How much faster whole chunks are to go back than the pages of a balloon that does not gather
/// them.
const LEAST_RATIO: f64 = 50.0;

/// Memory given back in each way and run: 128 MiB. Less, and single calls that were interrupted
/// show in the figure; more takes longer and tells no more.
const CHUNKS: u64 = 64;

/// How many pages a virtio balloon names at a time (`VIRTIO_BALLOON_ARRAY_PFNS_MAX` in Linux).
const BALLOON_ARRAY: u64 = 256;

const NOT_SHOWN: &str = "Time inside the calls that give memory back, on one thread, with no vCPU running: the flushes of other \
    processors' TLBs that a running guest costs are not in it, nor is the guest's part (its driver, the exits of its queue). \
    Everything was touched just before; it is in huge pages but where told otherwise. What the memory costs when it is touched again is not shown.";

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench reclaim\n  cargo xtask bench reclaim --runs 51 --json"
)]
pub struct ReclaimArgs {
    /// Measured runs of every way, by turns, after one to warm up.
    #[arg(long, value_name = "N", default_value_t = 21, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// As its last line, print the figures as one JSON object.
    #[arg(long)]
    json: bool,
}

/// GiB/s, run by run.
#[derive(Debug, Default)]
struct Rates {
    reported_chunks: Vec<f64>,
    ballooned_chunks: Vec<f64>,
    reported_pages: Vec<f64>,
    plain_chunks: Vec<f64>,
    plain_pages: Vec<f64>,
    /// The same as above, of memory that was in small pages before.
    small_pages: Vec<f64>,
    /// Which part of what was touched was in huge pages, where it should be.
    huge: Vec<f64>,
}

/// Measures and reports; fails where the goal is missed.
pub(crate) fn run(arguments: &ReclaimArgs) -> Result<ExitCode> {
    processor::stay(Place::Here);
    step(&format!("giving {} MiB back, in six ways by turns", (CHUNKS * CHUNK_SIZE) >> 20));
    let mut rates = Rates::default();
    rates.measure()?;
    rates = Rates::default();
    (0..arguments.runs).try_for_each(|_| rates.measure())?;
    rates.report()?.print(arguments.json)
}

impl Rates {
    /// Measures every way once.
    ///
    /// Each has memory of its own: what was given back page by page keeps its page table on older
    /// kernels, and comes back in small pages.
    fn measure(&mut self) -> Result<()> {
        self.ballooned_chunks.push(of_guest(&mut self.huge, inflate)?);
        self.plain_pages.push(of_plain(Some(&mut self.huge), PAGE_SIZE)?);
        self.reported_chunks.push(of_guest(&mut self.huge, |guest| release(guest, CHUNK_PAGES))?);
        self.small_pages.push(of_plain(None, PAGE_SIZE)?);
        self.reported_pages.push(of_guest(&mut self.huge, |guest| release(guest, 1))?);
        self.plain_chunks.push(of_plain(Some(&mut self.huge), CHUNK_SIZE)?);
        Ok(())
    }

    fn report(&self) -> Result<Report> {
        let balloon = Figure::new(
            "balloon gathered, to one that does not gather",
            "times",
            &ratios(&self.ballooned_chunks, &self.plain_pages),
        )?;
        let reporting = Figure::new(
            "reporting, to a balloon that does not gather",
            "times",
            &ratios(&self.reported_chunks, &self.plain_pages),
        )?;
        let goals = vec![
            Goal::at_least(
                "rate of a balloon, times one that does not gather",
                balloon.spread.median,
                LEAST_RATIO,
            ),
            Goal::at_least("rate of free page reporting, times that", reporting.spread.median, LEAST_RATIO),
        ];
        let least = self.huge.iter().copied().fold(1.0, f64::min) * 100.0;
        let remarks = (least < 95.0).then(|| {
            format!("In one run only {least:.0} % of the memory was in huge pages: its figures are not those of a host that has them.")
        });
        let figures = vec![
            Figure::new("ours: balloon, gathered into 2 MiB", "GiB/s", &self.ballooned_chunks)?,
            Figure::new("ours: free page reporting, 2 MiB a call", "GiB/s", &self.reported_chunks)?,
            Figure::new("ours: free page reporting, 4 KiB a call", "GiB/s", &self.reported_pages)?,
            Figure::new("DONTNEED, 2 MiB a call", "GiB/s", &self.plain_chunks)?,
            Figure::new(
                "DONTNEED, 4 KiB a call: a balloon that does not gather",
                "GiB/s",
                &self.plain_pages,
            )?,
            Figure::new("the same where no huge page was", "GiB/s", &self.small_pages)?,
            balloon,
            reporting,
        ];
        Ok(Report {
            runs: self.plain_pages.len(),
            figures,
            goals,
            remarks: Vec::from_iter(remarks),
            not_shown: NOT_SHOWN,
        })
    }
}

/// The rate at which `give_back` works on a guest's memory, whose part in huge pages goes to
/// `huge`.
fn of_guest(huge: &mut Vec<f64>, give_back: impl FnOnce(&Guest) -> Result<()>) -> Result<f64> {
    let before = anonymous_huge()?;
    let guest = Guest::new(CHUNKS, Pages::ZERO, None, Place::Elsewhere)?;
    (0..CHUNKS * CHUNK_PAGES).try_for_each(|ppn| guest.write(ppn, ppn))?;
    huge.push(anonymous_huge()? - before);
    rate(|| give_back(&guest))
}

/// The rate of `DONTNEED` of `unit` bytes a call, of memory in huge pages if there is a `huge` for
/// their part.
fn of_plain(huge: Option<&mut Vec<f64>>, unit: u64) -> Result<f64> {
    let before = anonymous_huge()?;
    let plain = Plain::new(CHUNKS, huge.is_some())?;
    let page = usize::try_from(PAGE_SIZE)?;
    (0..plain.len()).step_by(page).try_for_each(|offset| plain.write(offset, 1))?;
    if let Some(huge) = huge {
        huge.push(anonymous_huge()? - before);
    }
    let unit = usize::try_from(unit)?;
    rate(|| (0..plain.len()).step_by(unit).try_for_each(|offset| plain.discard(offset, unit)))
}

/// GiB/s at which all memory is given back.
fn rate(give_back: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    give_back()?;
    #[expect(clippy::cast_precision_loss, reason = "128 MiB")]
    let gib = (CHUNKS * CHUNK_SIZE) as f64 / f64::from(1 << 30);
    Ok(gib / start.elapsed().as_secs_f64())
}

/// Free page reporting, in units of `unit` pages.
fn release(guest: &Guest, unit: u64) -> Result<()> {
    let mut outcome = ReleaseOutcome::default();
    for first in (0..CHUNKS * CHUNK_PAGES).step_by(usize::try_from(unit)?) {
        outcome += guest.pmap.release(&[PpnRange::new(Ppn(first), Pages(unit))], Release::Reported);
    }
    all_freed(outcome)
}

/// A balloon that takes all memory, as its driver names it.
fn inflate(guest: &Guest) -> Result<()> {
    let mut inflation = Inflation::new(guest.pmap.clone());
    let mut outcome = ReleaseOutcome::default();
    for first in (0..CHUNKS * CHUNK_PAGES).step_by(usize::try_from(BALLOON_ARRAY)?) {
        let ppns: Vec<Ppn> = (first..first + BALLOON_ARRAY).map(Ppn).collect();
        outcome += inflation.inflate(&ppns);
    }
    all_freed(outcome)
}

fn all_freed(outcome: ReleaseOutcome) -> Result<()> {
    ensure!(outcome.freed == Pages(CHUNKS * CHUNK_PAGES), "not all memory was given back: {outcome:?}");
    Ok(())
}

/// This process's memory in huge pages, as a part of what is given back in each way.
fn anonymous_huge() -> Result<f64> {
    let path = "/proc/self/smaps_rollup";
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix("AnonHugePages:"));
    let kib: u32 = value
        .and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok())
        .with_context(|| format!("no AnonHugePages in {path}"))?;
    let all = u32::try_from((CHUNKS * CHUNK_SIZE) >> 10)?;
    Ok(f64::from(kib) / f64::from(all))
}
