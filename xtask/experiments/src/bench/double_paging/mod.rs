//! Double paging: a guest that swaps by itself under a host that swaps.
//!
//! Where a guest is short of memory, it writes the page that was used least recently to its own
//! disk, and that makes it read the page. If its host has swapped the same page out, the host must
//! bring it in first, only for the guest to give it up. A host that also takes the least recently
//! used pages takes just those which the guest will take next. That is one of the reasons why ESX
//! chose its victims at random (Waldspurger 2002, section 3.3), and why the pmap does.
//!
//! A model of a guest (`paging_guest.rs`) runs on real guest memory: a pmap with a swap file, whose
//! faults a thread serves as in the VMM. It has less memory than its programs use, replaces pages
//! in the exact order of their use, and has a disk of its own. The host lets it hold three quarters
//! of its memory. Runs with the same seed differ in nothing but the host's victims, random ones as
//! [`Pmap::page_out`](plimsoll_pmap::Pmap::page_out) chooses them, or the least recently used ones,
//! named page by page with [`Pmap::page_out_of`](plimsoll_pmap::Pmap::page_out_of).
//!
//! # What it shows
//!
//! The pages that the guest writes out are in the host's swap about twice as often where the host
//! takes the least recently used ones: always, where the guest touches its memory at random. A
//! guest that scans its memory then makes the host read twice as much.
//!
//! Random victims have their price. Where some pages are used much more than others, the host takes
//! pages that will be needed soon, and the guest waits for it about half as often again; the last
//! scenario is that alone, of a guest which does not swap. The pmap gives pages that have come back
//! a second chance, and prefers chunks that samples have shown to be idle. The former is in these
//! figures, the latter is not.
//!
//! # What it does not show
//!
//! Real guests; they reclaim in batches, less exactly, and drop file pages first. What it costs the
//! host to learn which pages were used least recently, which it is told here. Ballooning, which
//! lets the guest choose, and comes first in Plimsoll for that reason. A page that random victims
//! take has neighbours that were taken with it, and is read ahead with them; single pages have
//! none. So faults and pages read differ.

mod host;
mod paging_guest;
mod pattern;
mod recency;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Args;
use plimsoll_lab::workspace::step;
use plimsoll_units::{CHUNK_PAGES, Pages};

use self::host::Victims;
use self::paging_guest::{Counts, PagingGuest};
use self::pattern::Pattern;
use super::goal::Goal;
use super::memory::processor::{self, Place};
use super::report::{Figure, Report, ratios};
use crate::stats::Spread;

/// The guest's memory: 16 MiB. More takes longer and shows the same; with less, what the host takes
/// at a time is a large part of it.
const CHUNKS: u64 = 8;
#[expect(clippy::cast_possible_truncation, reason = "4096")]
const SIZE: usize = (CHUNKS * CHUNK_PAGES) as usize;

/// What the host lets the guest hold, in pages: three quarters.
const MOST: Pages = Pages(CHUNKS * CHUNK_PAGES * 3 / 4);

/// Accesses that are measured: two rounds of the programs' pages. As many before them are not, and
/// before those every page is touched once.
const ACCESSES: usize = 3 * SIZE;

/// How much oftener a guest's disk is to find the page that it writes in the host's swap under
/// least recently used victims than under random ones: otherwise random ones are not worth their
/// price.
const LEAST_RATIO: f64 = 1.5;

const NOT_SHOWN: &str = "A model of a guest, on one thread: a real one reclaims pages in batches, less exactly, and drops file pages \
    first. The host is told in which order pages were used, which a real one would have to find out. Chunks are not sampled, and no page \
    can be compressed. The time is that of accesses, without what the host takes to give pages up, and depends on this \
    machine's disk; the counts do not.";

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench double-paging\n  cargo xtask bench double-paging --runs 11 --json"
)]
pub struct DoublePagingArgs {
    /// Runs of every scenario with either kind of victims, by turns, each with another seed.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// As its last line, print the figures as one JSON object.
    #[arg(long)]
    json: bool,
}

/// What the guest's programs do.
#[derive(Clone, Copy)]
struct Scenario {
    name: &'static str,
    pattern: Pattern,
    /// How many pages they use.
    pages: usize,
}

/// Half more than the guest has.
const MORE: usize = SIZE * 3 / 2;

const SCENARIOS: [Scenario; 4] = [
    Scenario { name: "scan", pattern: Pattern::Scan, pages: MORE },
    Scenario { name: "uniform", pattern: Pattern::Uniform, pages: MORE },
    Scenario { name: "80/20", pattern: Pattern::Skewed, pages: MORE },
    Scenario { name: "80/20, no guest swap", pattern: Pattern::Skewed, pages: SIZE },
];

/// A figure that a run has.
struct Metric {
    name: &'static str,
    unit: &'static str,
    of: fn(&Counts) -> f64,
}

const METRICS: [Metric; 3] = [
    Metric {
        name: "host swap-ins",
        unit: "pages/access",
        of: |counts| per(counts.host_ins, counts.accesses),
    },
    Metric { name: "host faults", unit: "faults/access", of: |counts| per(counts.faults, counts.accesses) },
    Metric {
        name: "time",
        unit: "us/access",
        of: |counts| counts.time.as_secs_f64() * 1e6 / per(counts.accesses, 1),
    },
];

/// What the guest does, which is the same whatever the host takes.
const GUEST_IO: Metric = Metric {
    name: "guest swap I/O",
    unit: "pages/access",
    of: |counts| per(counts.ins + counts.outs, counts.accesses),
};

/// Double paging itself.
const PAGED_TWICE: Metric = Metric {
    name: "guest page-outs that the host must page in for",
    unit: "of 1",
    of: |counts| per(counts.twice, counts.outs),
};

/// One scenario's figures, run by run.
struct Outcome {
    scenario: Scenario,
    random: Vec<Counts>,
    least_recent: Vec<Counts>,
}

/// Measures and reports; fails where a goal is missed.
pub(crate) fn run(arguments: &DoublePagingArgs) -> Result<ExitCode> {
    processor::stay(Place::Here);
    let mut outcomes =
        SCENARIOS.map(|scenario| Outcome { scenario, random: Vec::new(), least_recent: Vec::new() });
    for seed in 0..u64::from(arguments.runs) {
        step(&format!("run {} of {}: a guest that swaps under a host that swaps", seed + 1, arguments.runs));
        outcomes.iter_mut().try_for_each(|outcome| outcome.measure(seed))?;
    }
    report(&outcomes)?.print(arguments.json)
}

impl Scenario {
    /// Runs it to a steady state, and then counts what happens.
    fn measure(&self, victims: Victims, seed: u64) -> Result<Counts> {
        fastrand::seed(seed);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut guest = PagingGuest::new(CHUNKS, MOST, self.pages, victims, seed)?;
        let mut access = |guest: &mut PagingGuest, index| {
            let page = self.pattern.page(index, self.pages, &mut random);
            guest.access(page, random.bool())
        };
        (0..self.pages).try_for_each(|page| guest.access(page, true))?;
        (0..ACCESSES).try_for_each(|index| access(&mut guest, index))?;
        let before = guest.counts();
        (ACCESSES..2 * ACCESSES).try_for_each(|index| access(&mut guest, index))?;
        Ok(guest.counts().since(before))
    }
}

impl Outcome {
    /// Measures both kinds of victims, each first in every other run.
    fn measure(&mut self, seed: u64) -> Result<()> {
        let mut turns = [Victims::Random, Victims::LeastRecent];
        turns.rotate_left(usize::from(seed % 2 == 1));
        for victims in turns {
            let counts = self.scenario.measure(victims, seed)?;
            match victims {
                Victims::Random => self.random.push(counts),
                Victims::LeastRecent => self.least_recent.push(counts),
            }
        }
        Ok(())
    }

    fn figures(&self) -> Result<Vec<Figure>> {
        let [guest_io, same] = self.runs(&GUEST_IO);
        ensure!(guest_io == same, "the same guest did not do the same: {guest_io:?}, {same:?}");
        let name = format!("{}: {}", self.scenario.name, GUEST_IO.name);
        let mut figures = vec![Figure::new(name, GUEST_IO.unit, &guest_io)?];
        let metrics = METRICS.iter().chain(self.swaps().then_some(&PAGED_TWICE));
        for metric in metrics {
            let name = format!("{}: {}", self.scenario.name, metric.name);
            let [random, least_recent] = self.runs(metric);
            figures.push(Figure::new(format!("{name}, random"), metric.unit, &random)?);
            figures.push(Figure::new(format!("{name}, LRU"), metric.unit, &least_recent)?);
            figures.push(Figure::new(
                format!("{name}, LRU to random"),
                "times",
                &ratios(&least_recent, &random),
            )?);
        }
        Ok(figures)
    }

    /// Whether random victims do what they are for.
    fn goal(&self) -> Option<Goal> {
        let [random, least_recent] = self.runs(&PAGED_TWICE);
        let ratio = Spread::of(ratios(&least_recent, &random), 3)?.median;
        let goal = format!("{}: {}, LRU to random", self.scenario.name, PAGED_TWICE.name);
        self.swaps().then(|| Goal::at_least(&goal, ratio, LEAST_RATIO))
    }

    /// What was measured with random victims, and with the least recently used ones.
    fn runs(&self, metric: &Metric) -> [Vec<f64>; 2] {
        [&self.random, &self.least_recent].map(|runs| runs.iter().map(metric.of).collect())
    }

    /// Whether the guest swaps by itself.
    fn swaps(&self) -> bool {
        self.scenario.pages > SIZE
    }
}

fn report(outcomes: &[Outcome]) -> Result<Report> {
    let mut figures = Vec::new();
    for outcome in outcomes {
        figures.extend(outcome.figures()?);
    }
    Ok(Report {
        runs: outcomes.first().map_or(0, |outcome| outcome.random.len()),
        figures,
        goals: outcomes.iter().filter_map(Outcome::goal).collect(),
        remarks: Vec::new(),
        not_shown: NOT_SHOWN,
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts of one run")]
fn per(count: u64, of: u64) -> f64 {
    count as f64 / of as f64
}
