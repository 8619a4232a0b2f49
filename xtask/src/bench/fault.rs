//! How long a touch of a compressed page takes.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Args;
use plimsoll_units::{PAGE_SIZE, Pages};

use super::goal::Goal;
use super::memory::bare::Bare;
use super::memory::buffer::{PageBuffer, Random};
use super::memory::guest::Guest;
use super::report::{Figure, Report, ratios};
use super::stats::Spread;
use crate::workspace::step;

/// What unpacking may add to a page fault that another thread serves.
const MOST_RATIO: f64 = 1.3;

/// Memory of the guest: 16 MiB, far more than the processor's second-level cache.
const CHUNKS: u64 = 8;
const PAGES: u64 = CHUNKS * Pages::CHUNK.0;

const NOT_SHOWN: &str = "The first read of a page by a thread of this process, served by another thread that sleeps until it is \
    needed: what a vCPU's exit and its second-level page tables add is in neither figure. Nothing else runs in the guest, so \
    no lock is ever waited for. The baseline takes the fault, copies a page that lies ready and warm, and keeps no account.";

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask bench fault\n  cargo xtask bench fault --runs 31 --json")]
pub(crate) struct FaultArgs {
    /// Measured runs of some 4000 faults of each kind, by turns, after one to warm up.
    #[arg(long, value_name = "N", default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// As its last line, print the figures as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Microseconds, the median of each run.
#[derive(Debug, Default)]
struct Times {
    ours: Vec<f64>,
    bare: Vec<f64>,
    /// Machine pages that a compressed page takes.
    shrunk: Vec<f64>,
}

/// Measures and reports; fails where the goal is missed.
pub(crate) fn run(arguments: &FaultArgs) -> Result<ExitCode> {
    step("touching compressed pages, and missing ones, by turns");
    let guest = Guest::new(CHUNKS, Pages(PAGES), None)?;
    (0..PAGES).try_for_each(|ppn| guest.fill(ppn, &PageBuffer::records(ppn)))?;
    let bare = Bare::new(CHUNKS, |_, _| Ok(()))?;
    let mut random = Random(1);
    Times::default().measure(&guest, &bare, &mut random)?;
    let mut times = Times::default();
    (0..arguments.runs).try_for_each(|_| times.measure(&guest, &bare, &mut random))?;
    times.report()?.print(arguments.json)
}

impl Times {
    /// Compresses nearly everything, and touches all of it.
    fn measure(&mut self, guest: &Guest, bare: &Bare, random: &mut Random) -> Result<()> {
        bare.discard()?;
        guest.page_out(|stats| stats.compressed.0 >= PAGES * 9 / 10)?;
        let stats = guest.pmap.stats();
        self.shrunk.push(quotient(stats.store.0, stats.compressed.0));
        let mut ppns: Vec<u64> = (0..PAGES).collect();
        random.shuffle(&mut ppns);
        let (mut ours, mut bares) = (Vec::new(), Vec::new());
        for ppn in ppns {
            // A few pages were left where they are.
            if guest.is_resident(ppn)? {
                continue;
            }
            let offset = usize::try_from(ppn * PAGE_SIZE)?;
            // Who comes second finds warmer caches: each as often as the other.
            let ((our, word), (other, _)) = if random.next().is_multiple_of(2) {
                let our = guest.touch(ppn)?;
                (our, bare.touch(offset)?)
            } else {
                let other = bare.touch(offset)?;
                (guest.touch(ppn)?, other)
            };
            ensure!(word == ppn, "page {ppn} came back as page {word}");
            ours.push(our.as_secs_f64() * 1e6);
            bares.push(other.as_secs_f64() * 1e6);
        }
        self.ours.extend(Spread::of(ours, 3).map(|spread| spread.median));
        self.bare.extend(Spread::of(bares, 3).map(|spread| spread.median));
        Ok(())
    }

    fn report(&self) -> Result<Report> {
        let ratio = Figure::new("ours to bare", "times", &ratios(&self.ours, &self.bare))?;
        let goals = vec![Goal::at_most(
            "a fault on a compressed page, times a bare round trip",
            ratio.spread.median,
            MOST_RATIO,
        )];
        let figures = vec![
            Figure::new("ours: a compressed page", "us", &self.ours)?,
            Figure::new("bare: UFFDIO_COPY of a page that lies ready", "us", &self.bare)?,
            ratio,
            Figure::new("a page shrinks to, bookkeeping included", "pages", &self.shrunk)?,
        ];
        Ok(Report { runs: self.ours.len(), figures, goals, remarks: Vec::new(), not_shown: NOT_SHOWN })
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of a few thousand")]
fn quotient(above: u64, below: u64) -> f64 {
    above as f64 / below as f64
}
