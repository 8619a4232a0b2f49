//! How much equal memory the kernel's own merging finds for how much CPU time.

mod data;
mod kernel;
mod outcome;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use plimsoll_units::CHUNK_PAGES;

use self::data::{Contents, Data, is_common};
use self::outcome::Outcome;
use super::memory::buffer::Random;
use super::memory::ksm::Ksm;
use super::memory::processor::{self, Place};
use super::report::{Figure, Report};
use crate::workspace::step;

/// Merged pages that are written to, each once.
const BREAKS: usize = 512;

const NOT_SHOWN: &str = "Memory that nobody writes to while it is scanned, of two VMs that are threads of this process: \
    what flushing the TLBs of running vCPUs costs is not in the figures. CPU time is that of the threads \
    that merge; interrupts that freeing memory causes later are not counted. A break is a write by a host thread.";

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench sharing\n  cargo xtask bench sharing --mib 512 --json"
)]
pub(crate) struct SharingArgs {
    /// Measured runs of every data set, by turns, after one to warm up.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Memory of each of the two VMs, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=65536))]
    mib: u32,
    /// Memory is in small pages from the start, as that of a VM that was short of memory before.
    #[arg(long)]
    small_pages: bool,
    /// As its last line, print the figures as one JSON object.
    #[arg(long)]
    json: bool,
}

/// The memory of each VM.
#[derive(Clone, Copy, Debug)]
struct Memory {
    chunks: u64,
    huge_pages: bool,
}

/// Measures and reports; fails where a goal is missed.
pub(crate) fn run(arguments: &SharingArgs) -> Result<ExitCode> {
    processor::stay(Place::Here);
    let memory = Memory { chunks: u64::from(arguments.mib) / 2, huge_pages: !arguments.small_pages };
    step(&format!("merging equal pages of two VMs of {} MiB, in four data sets by turns", arguments.mib));
    let mut bench = Bench { ksm: Ksm::new(arguments.small_pages)?, memory, theirs: Default::default() };
    bench.measure()?;
    bench.theirs = Default::default();
    (0..arguments.runs).try_for_each(|_| bench.measure())?;
    bench.report()?.print(arguments.json)
}

struct Bench {
    ksm: Ksm,
    memory: Memory,
    /// By data set, as in [`Data::ALL`].
    theirs: [Vec<Outcome>; Data::ALL.len()],
}

impl Bench {
    fn measure(&mut self) -> Result<()> {
        for (data, theirs) in Data::ALL.into_iter().zip(&mut self.theirs) {
            theirs.push(kernel::measure(&self.ksm, data, self.memory)?);
        }
        Ok(())
    }

    fn report(&self) -> Result<Report> {
        let mut figures = Vec::new();
        for (data, theirs) in Data::ALL.into_iter().zip(&self.theirs) {
            let all = data.mergeable(self.memory.chunks * CHUNK_PAGES);
            figures.extend(of_outcomes(&format!("KSM, {}", data.name()), theirs, all)?);
        }
        let remarks = Vec::new();
        let runs = self.theirs[0].len();
        Ok(Report { runs, figures, goals: Vec::new(), remarks, not_shown: NOT_SHOWN })
    }
}

/// The figures of one data set, of whose pages `all` can be merged.
#[expect(clippy::cast_precision_loss, reason = "figures")]
fn of_outcomes(name: &str, outcomes: &[Outcome], all: u64) -> Result<Vec<Figure>> {
    let figure = |what: &str, unit, value: &dyn Fn(&Outcome) -> f64| {
        Figure::new(format!("{name}: {what}"), unit, &outcomes.iter().map(value).collect::<Vec<_>>())
    };
    Ok(vec![
        figure("merged", "pages/CPU s", &rate)?,
        figure("of what can be merged", "%", &|outcome| outcome.merged as f64 * 100.0 / all as f64)?,
        figure("time until then", "s", &|outcome| outcome.converged.elapsed.as_secs_f64())?,
        figure("saved net", "MiB", &|outcome| outcome.saved as f64 / f64::from(1 << 20))?,
        figure("a pass over unchanged memory", "% of the CPU time until then", &second_pass)?,
        figure("a write to a merged page", "us", &|outcome| outcome.broken.as_secs_f64() * 1e6)?,
    ])
}

/// Merged pages per second of CPU time.
#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn rate(outcome: &Outcome) -> f64 {
    outcome.merged as f64 / outcome.converged.cpu.as_secs_f64()
}

/// What a second pass costs, in percent of the time until convergence.
fn second_pass(outcome: &Outcome) -> f64 {
    outcome.second_pass.cpu.as_secs_f64() * 100.0 / outcome.converged.cpu.as_secs_f64()
}

/// The median time that `write` takes for pages that the other VM has as well, or that are zeros.
fn median(contents: &Contents, mut write: impl FnMut(u64) -> Result<Duration>) -> Result<Duration> {
    let mut common: Vec<u64> =
        (0..).zip(contents).filter(|(_, content)| is_common(**content)).map(|(ppn, _)| ppn).collect();
    Random(1).shuffle(&mut common);
    let mut times = common.into_iter().take(BREAKS).map(&mut write).collect::<Result<Vec<_>>>()?;
    times.sort_unstable();
    times.get(times.len() / 2).copied().context("no page of the data set is common")
}
