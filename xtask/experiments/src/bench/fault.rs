//! How long a touch of a compressed page takes.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;
use plimsoll_lab::workspace::step;
use plimsoll_pmap::PpnRange;
use plimsoll_units::{PAGE_SIZE, Pages, Ppn};

use super::goal::Goal;
use super::memory::bare::Bare;
use super::memory::buffer::{PageBuffer, Random};
use super::memory::guest::Guest;
use super::memory::processor::{self, Place};
use super::report::{Figure, Report, ratios};
use crate::stats::Spread;

/// What unpacking may add to a page fault that another thread serves.
const MOST_RATIO: f64 = 1.3;

/// Memory of the guest: 16 MiB, far more than the processor's second-level cache.
const CHUNKS: u64 = 8;
const PAGES: u64 = CHUNKS * Pages::CHUNK.0;

/// Fewer compressed pages than this have no steady median.
const ENOUGH: u64 = 500;

const NOT_SHOWN: &str = "The first read of a page by a thread of this process, served by another thread that \
    sleeps until it is needed: what a vCPU's exit and its second-level page tables add is in neither figure. Nothing else runs in the guest, so \
    no lock is ever waited for. Against a vCPU's round trip, which takes longer, the unpacking weighs less. The baseline takes the fault, copies a page that lies ready and warm, and keeps no account.";

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask bench fault\n  cargo xtask bench fault --runs 31 --json")]
pub struct FaultArgs {
    /// Measured runs of some 4000 faults of each kind, by turns, after one to warm up.
    #[arg(long, value_name = "N", default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// As its last line, print the figures as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Measures and reports; fails where the goal is missed.
pub(crate) fn run(arguments: &FaultArgs) -> Result<ExitCode> {
    processor::stay(Place::Here);
    step("touching compressed pages, and missing ones, by turns");
    let records = (0..PAGES).map(PageBuffer::records);
    let program = program()?;
    let mut rivals = Vec::new();
    for place in [Place::Elsewhere, Place::Here] {
        rivals.push(Rivals::new(place, records.clone())?);
        rivals.push(Rivals::new(place, program.iter().cloned())?);
    }
    let mut random = Random(1);
    for rivals in &mut rivals {
        rivals.measure(&mut random)?;
        rivals.times = Times::default();
    }
    for _ in 0..arguments.runs {
        rivals.iter_mut().try_for_each(|rivals| rivals.measure(&mut random))?;
    }
    report(&rivals)?.print(arguments.json)
}

/// A guest that is full of pages of a kind, and memory that holds nothing; both served at the same
/// place.
struct Rivals {
    guest: Guest,
    bare: Bare,
    /// The first word of each page.
    words: Vec<u64>,
    times: Times,
}

/// Microseconds, the median of each run.
#[derive(Debug, Default)]
struct Times {
    ours: Vec<f64>,
    bare: Vec<f64>,
    /// Machine pages that a compressed page takes.
    shrunk: Vec<f64>,
}

impl Rivals {
    fn new(place: Place, pages: impl Iterator<Item = PageBuffer>) -> Result<Self> {
        let guest = Guest::new(CHUNKS, Pages(PAGES), None, place)?;
        let bare = Bare::new(CHUNKS, place, |_, _| Ok(()))?;
        let mut words = Vec::new();
        for (page, ppn) in pages.zip(0..PAGES) {
            guest.fill(ppn, &page)?;
            words.push(page.first_word());
        }
        Ok(Self { guest, bare, words, times: Times::default() })
    }

    /// Compresses all that shrinks, and touches it.
    fn measure(&mut self, random: &mut Random) -> Result<()> {
        self.bare.discard()?;
        // By name: of pages that it chooses, eviction spares those that were touched of late.
        self.guest.pmap.page_out_of(&[PpnRange::new(Ppn(0), Pages(PAGES))]);
        let stats = self.guest.pmap.stats();
        ensure!(stats.compressed > Pages(ENOUGH), "too few pages were compressed: {stats:?}");
        self.times.shrunk.push(quotient(stats.store.0, stats.compressed.0));
        let mut pages: Vec<(u64, u64)> = (0..).zip(self.words.iter().copied()).collect();
        random.shuffle(&mut pages);
        let (mut ours, mut bares) = (Vec::new(), Vec::new());
        for (ppn, expected) in pages {
            // What does not shrink was left where it is.
            if self.guest.is_resident(ppn)? {
                continue;
            }
            let offset = usize::try_from(ppn * PAGE_SIZE)?;
            // The second measurement finds warmer caches: each comes second as often as the other.
            let ((our, word), (other, _)) = if random.next().is_multiple_of(2) {
                let our = self.guest.touch(ppn)?;
                (our, self.bare.touch(offset)?)
            } else {
                let other = self.bare.touch(offset)?;
                (self.guest.touch(ppn)?, other)
            };
            ensure!(word == expected, "page {ppn} came back as something else");
            ours.push(our.as_secs_f64() * 1e6);
            bares.push(other.as_secs_f64() * 1e6);
        }
        self.times.ours.extend(Spread::of(ours, 3).map(|spread| spread.median));
        self.times.bare.extend(Spread::of(bares, 3).map(|spread| spread.median));
        Ok(())
    }
}

/// Pages of this program's own file, from all of it: its code hardly shrinks, what it has for
/// debuggers does.
fn program() -> Result<Vec<PageBuffer>> {
    let path = std::env::current_exe().context("finding this program's own file")?;
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let pages = bytes.as_chunks().0;
    let every = (pages.len() / usize::try_from(PAGES)?).max(1);
    Ok(pages.iter().step_by(every).map(|page| PageBuffer(*page)).collect())
}

/// What is measured, in the order of [`run`]: pages of records and of a program, served elsewhere
/// and here.
const NAMES: [[&str; 4]; 4] = [
    [
        "ours, elsewhere: records",
        "bare, elsewhere",
        "ours to bare, elsewhere: records",
        "a page of records shrinks to",
    ],
    [
        "ours, elsewhere: program",
        "bare, elsewhere again",
        "ours to bare, elsewhere: program",
        "a page of a program shrinks to",
    ],
    [
        "ours, here: records",
        "bare, here",
        "ours to bare, here: records",
        "a page of records shrinks to, again",
    ],
    [
        "ours, here: program",
        "bare, here again",
        "ours to bare, here: program",
        "a page of a program shrinks to, again",
    ],
];

fn report(rivals: &[Rivals]) -> Result<Report> {
    let (mut figures, mut goals) = (Vec::new(), Vec::new());
    for (Rivals { times, .. }, [ours, bare, to_bare, shrunk]) in rivals.iter().zip(NAMES) {
        let ratio = Figure::new(to_bare, "times", &ratios(&times.ours, &times.bare))?;
        goals.push(Goal::at_most(to_bare, ratio.spread.median, MOST_RATIO));
        figures.push(Figure::new(ours, "us", &times.ours)?);
        figures.push(Figure::new(bare, "us", &times.bare)?);
        figures.push(ratio);
        figures.push(Figure::new(shrunk, "pages", &times.shrunk)?);
    }
    let runs = rivals.first().map_or(0, |rivals| rivals.times.ours.len());
    let remark = "\"Here\" faults are served on the processor that touches the page, \"elsewhere\" on another one: the kernel chooses either, and what \
        unpacking adds is the same. \"Records\" are pointers and numbers, made up; \"program\" is this program's own file, as far as \
        its pages shrink to half.";
    Ok(Report { runs, figures, goals, remarks: vec![remark.to_owned()], not_shown: NOT_SHOWN })
}

#[expect(clippy::cast_precision_loss, reason = "numbers of a few thousand")]
fn quotient(above: u64, below: u64) -> f64 {
    above as f64 / below as f64
}
