//! How much equal memory is merged for how much CPU time, against the kernel's own merging.

mod data;
mod host;
mod kernel;
mod ours;
mod outcome;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use plimsoll_lab::workspace::step;
use plimsoll_units::CHUNK_PAGES;

use self::data::{Data, Memory};
use self::outcome::Outcome;
use super::goal::Goal;
use super::memory::ksm::Ksm;
use super::memory::processor::{self, Place};
use super::memory::put_back::PutBack;
use super::report::{Figure, Report, ratios};

/// What we are to merge for a second of CPU time, times what KSM merges.
const LEAST_RATIOS: [(Data, f64); 3] = [(Data::Scattered, 2.0), (Data::Runs, 4.0), (Data::Zero, 4.0)];
/// What a pass over unchanged memory may cost, in percent of the first.
const MOST_SECOND_PASS: f64 = 5.0;

/// How many mappings a process may have.
const MOST_MAPPINGS: &str = "/proc/sys/vm/max_map_count";

const NOT_SHOWN: &str = "Memory that nobody writes to while it is scanned, of two VMs in this process: what flushing the TLBs of \
    running vCPUs costs is not in the figures. CPU time is that of the threads that merge, of the one that answers for the \
    daemon and of those that serve faults; what the kernel does later and elsewhere, when it frees memory, is not counted. The daemon's \
    part is threads of this process behind sockets with the protocol's messages; one thread scans both VMs by turns. A break is a write by a host thread.";

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench sharing\n  cargo xtask bench sharing --mib 512 --json"
)]
pub struct SharingArgs {
    /// Measured runs of every data set, ours and KSM's by turns, after one to warm up.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Memory of each of the two VMs, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=65536))]
    mib: u32,
    /// One data set instead of all.
    #[arg(long, value_enum)]
    data: Option<Data>,
    /// Memory is in small pages from the start, as on a host without huge pages.
    #[arg(long)]
    small_pages: bool,
    /// As its last line, print the figures as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Measures and reports; fails where a goal is missed.
pub(crate) fn run(arguments: &SharingArgs) -> Result<ExitCode> {
    processor::stay(Place::Here);
    if arguments.small_pages {
        rustix::thread::disable_transparent_huge_pages(true).context("doing without huge pages")?;
    }
    let memory = Memory { chunks: u64::from(arguments.mib) / 2, huge_pages: !arguments.small_pages };
    step(&format!("merging equal pages of two VMs of {} MiB, ours and the kernel's by turns", arguments.mib));
    // Twice for every page, and what a process has anyway.
    let most_mappings = memory.chunks * CHUNK_PAGES * 4 + 65_530;
    let mut bench = Bench {
        data: arguments.data.map_or_else(|| Data::ALL.to_vec(), |data| vec![data]),
        memory,
        ksm: Ksm::new(),
        mappings: PutBack::set(MOST_MAPPINGS, &most_mappings.to_string()),
        measured: Vec::new(),
    };
    bench.measure()?;
    bench.measured.clear();
    (0..arguments.runs).try_for_each(|_| bench.measure())?;
    bench.report()?.print(arguments.json)
}

struct Bench {
    data: Vec<Data>,
    memory: Memory,
    ksm: Result<Ksm>,
    /// Raised, as an operator would where many pages are shared: both VMs are in one process here.
    mappings: Result<PutBack>,
    measured: Vec<Measured>,
}

/// What came of one data set in all runs.
struct Measured {
    data: Data,
    ours: Vec<Outcome>,
    /// None where there is no KSM.
    theirs: Vec<Outcome>,
}

impl Bench {
    fn measure(&mut self) -> Result<()> {
        if self.measured.is_empty() {
            let none = |&data| Measured { data, ours: Vec::new(), theirs: Vec::new() };
            self.measured = self.data.iter().map(none).collect();
        }
        for Measured { data, ours, theirs } in &mut self.measured {
            ours.push(ours::measure(*data, self.memory)?);
            if let Ok(ksm) = &self.ksm {
                theirs.push(kernel::measure(ksm, *data, self.memory)?);
            }
        }
        Ok(())
    }

    fn report(&self) -> Result<Report> {
        let (mut figures, mut goals, mut remarks) = (Vec::new(), Vec::new(), Vec::new());
        for Measured { data, ours, theirs } in &self.measured {
            let all = data.mergeable(self.memory.chunks * CHUNK_PAGES);
            figures.extend(of_outcomes(&format!("ours, {}", data.name()), ours, all)?);
            if !theirs.is_empty() {
                figures.extend(of_outcomes(&format!("KSM, {}", data.name()), theirs, all)?);
            }
        }
        if let Err(error) = &self.ksm {
            remarks.push(format!("Not measured: KSM. {error:#}."));
        } else {
            self.compare(&mut figures, &mut goals)?;
        }
        let first = self.measured.first().context("no data set was measured")?;
        let passes: Vec<f64> = first.ours.iter().map(second_pass).collect();
        let second_pass = Figure::new("second_pass", "%", &passes)?;
        let goal = format!("a pass over unchanged memory, {}, % of the first", first.data.name());
        goals.push(Goal::at_most(&goal, second_pass.spread.median, MOST_SECOND_PASS));
        figures.push(second_pass);
        remarks.extend(self.mappings.as_ref().err().map(|error| {
            format!("As many pages are shared as the usual number of mappings allows. {error:#}.")
        }));
        Ok(Report { runs: first.ours.len(), figures, goals, remarks, not_shown: NOT_SHOWN })
    }

    /// Ratios of ours to KSM's, and what they should be.
    fn compare(&self, figures: &mut Vec<Figure>, goals: &mut Vec<Goal>) -> Result<()> {
        for Measured { data, ours, theirs } in &self.measured {
            let name = data.name();
            let rates = |outcomes: &[Outcome]| outcomes.iter().map(rate).collect::<Vec<_>>();
            let ratio = Figure::new(format!("ratio_{name}"), "times", &ratios(&rates(ours), &rates(theirs)))?;
            if let Some((_, least)) = LEAST_RATIOS.into_iter().find(|(of, _)| of == data) {
                let goal = format!("merged a second of CPU time, {name}, times KSM");
                goals.push(Goal::at_least(&goal, ratio.spread.median, least));
            }
            let saved = |outcomes: &[Outcome]| outcomes.iter().map(saved).collect::<Vec<_>>();
            let net = Figure::new(format!("net_{name}"), "times", &ratios(&saved(ours), &saved(theirs)))?;
            goals.push(Goal::at_least(&format!("saved net, {name}, times KSM"), net.spread.median, 1.0));
            figures.extend([ratio, net]);
        }
        Ok(())
    }
}

/// The figures of one data set. `all` of its pages can be merged.
#[expect(clippy::cast_precision_loss, reason = "figures")]
fn of_outcomes(name: &str, outcomes: &[Outcome], all: u64) -> Result<Vec<Figure>> {
    let figure = |what: &str, unit, value: &dyn Fn(&Outcome) -> f64| {
        Figure::new(format!("{name}: {what}"), unit, &outcomes.iter().map(value).collect::<Vec<_>>())
    };
    Ok(vec![
        figure("merged", "pages/CPU s", &rate)?,
        figure("of what can be merged", "%", &|outcome| outcome.merged as f64 * 100.0 / all as f64)?,
        figure("time until then", "s", &|outcome| outcome.converged.elapsed.as_secs_f64())?,
        figure("saved net", "MiB", &saved)?,
        figure("a pass over unchanged memory", "% of the CPU time until then", &second_pass)?,
        figure("a write to a merged page", "us", &|outcome| outcome.broken.as_secs_f64() * 1e6)?,
    ])
}

/// MiB saved at the end.
#[expect(clippy::cast_precision_loss, reason = "a figure")]
fn saved(outcome: &Outcome) -> f64 {
    outcome.saved as f64 / f64::from(1 << 20)
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
