//! A daemon whose VMs start, stop, die, change and move, for hours: memory, descriptors, mappings
//! and files of daemon and VMMs are flat, and nothing is left when all VMs are off.
//!
//! [`churn`] keeps VMs coming and going, [`sample`] looks at the processes between two operations,
//! with always the same number of VMs on, [`verdict`] judges the samples, [`chart`] draws them.

mod chart;
mod churn;
mod report;
mod sample;
mod trend;
mod verdict;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use plimsoll_lab::workspace::{self, note, step};
use plimsoll_operate::Stage;
use plimsoll_operate::remains::Before;
use plimsoll_units::Bytes;

use self::churn::Churn;
use self::report::Report;
use self::sample::Sample;
use self::verdict::judge;

/// What each guest sees.
const SIZE: Bytes = Bytes::mib(48);
/// Machine memory for each VM, less than its size and overhead: balloons, sharing and paging work
/// all the time.
const PART: Bytes = Bytes::mib(20);
/// Memory is short of what guests want, and samples are taken often.
const SETTINGS: &str = "sample_period = 5\n";
/// Time between two operations. Each divides memory anew; more would only wait for each other.
const PACE: Duration = Duration::from_millis(500);
/// Time between two samples of a long run.
const EVERY: Duration = Duration::from_secs(60);
/// Fewest samples: a short run takes them more often.
const FEWEST: u32 = 40;
/// How long VMs rest before a sample: what an operation has begun is over by then.
const REST: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
#[command(after_help = "\
A quarter of the VMs live throughout, the others come and go. Two operations a second, drawn at random: start, stop, kill, \
forget, set shares and limits, move to another pool or sharing domain, work in the guest. Operations are the same for the \
same seed, but not when they end.

Each minute (more often in a run of less than 40) operations pause until three quarters of the VMs that come and go are on. \
Then the kernel is asked what daemon and VMMs have. At the end a line is laid through the second half of the samples, by \
the median of the slopes between any two of them (Theil-Sen): a leak shows in it, a few samples that stand out do not. \
A figure is flat if that line rises by no more than its bound an hour, or by less than its grain in all. Bounds and \
slopes are printed, and the chart shows all samples.

The exit status is 1 where something grew, was left over or went wrong.

Examples:
  cargo xtask campaign soak
  cargo xtask campaign soak --minutes 10 --seed 7 --chart soak.svg --json")]
pub struct SoakArgs {
    /// How long VMs come and go.
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    minutes: u32,
    /// VMs of 48 MiB.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=500))]
    vms: u32,
    /// What decides which operations come; without, one is drawn and printed.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Draw the samples as SVG to this file.
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// As its last line, print everything as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs and reports.
pub(crate) fn run(arguments: &SoakArgs) -> Result<ExitCode> {
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    workspace::build_for_models()?;
    let budget = Bytes(PART.0 * u64::from(arguments.vms));
    let stage = Stage::open_with(budget, SETTINGS)?;
    step(&format!(
        "{} model guests on a budget of {budget}, for {} minutes, with seed {seed}",
        arguments.vms, arguments.minutes
    ));
    let result = soak(&stage, arguments, seed);
    let report = stage.explained(result)?;
    if let Some(path) = &arguments.chart {
        fs::write(path, chart::draw(&report)).with_context(|| format!("writing {}", path.display()))?;
        note(&format!("{} is written", path.display()));
    }
    report.print(arguments.json)
}

fn soak(stage: &Stage, arguments: &SoakArgs, seed: u64) -> Result<Report> {
    let total = Duration::from_secs(60 * u64::from(arguments.minutes));
    let every = EVERY.min(total / FEWEST);
    let mut before = Before::of(stage)?;
    let mut churn = Churn::begin(stage, arguments.vms, seed)?;
    let begin = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    while begin.elapsed() < total {
        let next = begin + every * u32::try_from(samples.len() + 1).unwrap_or(u32::MAX);
        while Instant::now() < next {
            churn.operate(stage)?;
            thread::sleep(PACE);
        }
        churn.come_to_rest(stage)?;
        thread::sleep(REST);
        let vms = churn.observe(stage)?;
        before.note(vms.iter().filter_map(|vm| vm.pid));
        let sample = Sample::take(stage, begin.elapsed(), &vms)?;
        note(&format!("{}; {}", sample.line(), churn.line()));
        samples.push(sample);
    }
    step("stopping all of them");
    churn.end(stage)?;
    let remains = before.remains(stage)?;
    note(&remains.to_string());
    let verdicts = judge(&samples);
    Ok(Report {
        seed,
        minutes: arguments.minutes,
        vms: arguments.vms,
        operations: churn.counts(),
        wrong: churn.into_wrong(),
        samples,
        verdicts,
        remains,
    })
}
