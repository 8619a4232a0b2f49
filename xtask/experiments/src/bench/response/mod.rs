//! How soon a guest that turns busy has the memory that others only sit on.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use plimsoll_lab::workspace::{self, step};
use plimsoll_operate::Stage;
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_operate::toucher::Toucher;
use plimsoll_units::Bytes;

use super::goal::Goal;
use super::report::{Figure, Report};

/// How much longer than with free memory it may take where others' balloons bring the memory.
const BY_BALLOON: f64 = 2.0;
/// The same where others' pages can be swapped out.
const BY_SWAP: f64 = 0.2;

const SIZE: Bytes = Bytes::mib(256);
const VMS: usize = 4;
/// Machine memory for all of them where it is short.
const BUDGET: Bytes = Bytes::mib(640);
/// What an idle guest has touched, and what of that it still uses.
const TOUCHED: Bytes = Bytes::mib(200);
const KEPT: Bytes = Bytes::mib(16);
/// What the busy guest comes to need. With true use the exact division gives it its whole size: the
/// others use 16 MiB each.
const NEEDED: Bytes = Bytes::mib(232);
/// So much of that counts as having it: 95 %.
const ENOUGH: Bytes = Bytes(NEEDED.0 / 20 * 19);

/// Until idle guests are seen to be idle: some half-lives of the slow average of samples of 1 s.
const REST: Duration = Duration::from_secs(20);
/// How often it is looked at what the busy guest has.
const LOOK: Duration = Duration::from_millis(5);
const LIMIT: Duration = Duration::from_secs(120);

const NOT_SHOWN: &str = "Guests are models, threads of their VMMs on this machine's processors: they have no kernel, so no page \
    cache, no reclaim of their own and no balloon driver that clears pages. What idle guests hold is memory that they have freed and \
    do not report. Samples are taken fifteen times as often as by default, so that idle guests are believed idle within a run. A rule \
    that sizes balloons from outside, as Proxmox has it, and free page reporting alone are not compared: models have nothing for them.";

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench response\n  cargo xtask bench response --runs 9 --json"
)]
pub struct ResponseArgs {
    /// Measured runs of each way, by turns, after one to warm up.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// As its last line, print the figures as one JSON object.
    #[arg(long)]
    json: bool,
}

/// How the busy guest gets memory.
#[derive(Clone, Copy, Debug)]
struct Way {
    name: &'static str,
    budget: Bytes,
    settings: &'static str,
    /// Each VM's limit is its equal part of the memory.
    fixed: bool,
}

const NO_PAGING: &str = "sample_period = 1\nlargest_store = 0\nswap.enabled = false\n";
const SWAP: &str = "sample_period = 1\n";

const WAYS: [Way; 4] = [
    Way { name: "memory is free", budget: Bytes::mib(2048), settings: NO_PAGING, fixed: false },
    Way { name: "balloons", budget: BUDGET, settings: NO_PAGING, fixed: false },
    Way { name: "balloons and swap", budget: BUDGET, settings: SWAP, fixed: false },
    Way { name: "equal limits and swap", budget: BUDGET, settings: SWAP, fixed: true },
];

/// What one way showed, run by run.
#[derive(Debug, Default)]
struct Times {
    /// Seconds until the busy guest had enough; those in which it never had are not here.
    enough: Vec<f64>,
    /// Seconds until it had touched all.
    done: Vec<f64>,
    /// Seconds in which an idle guest then verifies what it kept, the slowest of them.
    idle: Vec<f64>,
}

/// Measures and reports; fails where a goal is missed.
pub(crate) fn run(arguments: &ResponseArgs) -> Result<ExitCode> {
    workspace::build_for_models()?;
    let mut times: [Times; WAYS.len()] = Default::default();
    for turn in 0..=arguments.runs {
        let what =
            if turn == 0 { "warming up".to_owned() } else { format!("run {turn} of {}", arguments.runs) };
        step(&format!("{what}: {VMS} model guests of {SIZE}, {} ways", WAYS.len()));
        for (way, times) in WAYS.iter().zip(&mut times) {
            let mut one = Times::default();
            measure(way, &mut one).with_context(|| format!("where the way is {:?}", way.name))?;
            if turn > 0 {
                times.enough.append(&mut one.enough);
                times.done.append(&mut one.done);
                times.idle.append(&mut one.idle);
            }
        }
    }
    report(&times)?.print(arguments.json)
}

fn measure(way: &Way, times: &mut Times) -> Result<()> {
    let stage = Stage::open_with(way.budget, way.settings)?;
    let result = busy_among_idle(&stage, way, times);
    stage.explained(result)
}

fn busy_among_idle(stage: &Stage, way: &Way, times: &mut Times) -> Result<()> {
    let names: Vec<String> = (1..=VMS).map(|n| format!("guest{n}")).collect();
    for name in &names {
        let mut definition = Definition::new(name, SIZE, Runs::Model);
        definition.reports_free_pages = false;
        stage.run(&definition)?;
        if way.fixed {
            let part = Bytes(way.budget.0 / VMS as u64).to_string();
            stage.succeed(&["set", name, "--limit", &part])?;
        }
    }
    let mut guests = names.iter().map(|name| stage.toucher(name)).collect::<Result<Vec<Toucher>>>()?;
    let (name, mut busy) = names.last().zip(guests.pop()).context("there are guests")?;
    for guest in &mut guests {
        guest.ask(&format!("touch {} 1", TOUCHED.0), LIMIT)?;
        guest.ask("free", LIMIT)?;
        guest.ask(&format!("touch {} 2", KEPT.0), LIMIT)?;
    }
    thread::sleep(REST);
    let begin = Instant::now();
    let touched = AtomicBool::new(false);
    let (had, done) = thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(stage, name, begin, &touched));
        let answer = busy.ask(&format!("touch {} 3", NEEDED.0), LIMIT);
        let done = begin.elapsed();
        touched.store(true, Ordering::Relaxed);
        let had = watcher.join().map_err(|_| anyhow!("the thread that looks at grants has panicked"))??;
        answer.map(|_| (had, done))
    })?;
    times.enough.extend(had.map(|time| time.as_secs_f64()));
    times.done.push(done.as_secs_f64());
    let mut slowest = Duration::ZERO;
    for guest in &mut guests {
        let begin = Instant::now();
        guest.verify_all(LIMIT)?;
        slowest = slowest.max(begin.elapsed());
    }
    times.idle.push(slowest.as_secs_f64());
    busy.verify_all(LIMIT).map(drop)
}

/// How long after `begin` the VM `name` has enough; `None` where it has `touched` all before.
fn watch(stage: &Stage, name: &str, begin: Instant, touched: &AtomicBool) -> Result<Option<Duration>> {
    while !touched.load(Ordering::Relaxed) {
        if stage.vm(name)?.grant >= ENOUGH {
            return Ok(Some(begin.elapsed()));
        }
        thread::sleep(LOOK);
    }
    Ok(None)
}

fn report(times: &[Times; WAYS.len()]) -> Result<Report> {
    let mut figures = Vec::new();
    for (way, times) in WAYS.iter().zip(times) {
        // A guest whose limit stops it never has enough.
        if !times.enough.is_empty() {
            figures.push(Figure::new(format!("{}: has {NEEDED}", way.name), "s", &times.enough)?);
        }
        figures.push(Figure::new(format!("{}: has touched all of it", way.name), "s", &times.done)?);
        figures.push(Figure::new(format!("{}: an idle guest then verifies", way.name), "s", &times.idle)?);
    }
    let median = |way: usize| Figure::new("", "s", &times[way].enough).map(|figure| figure.spread.median);
    let (free, balloons, swap) = (median(0)?, median(1)?, median(2)?);
    let goals = vec![
        Goal::at_most("seconds that it waits for it, by balloons", (balloons - free).max(0.0), BY_BALLOON),
        Goal::at_most("seconds that it waits for it, by balloons and swap", (swap - free).max(0.0), BY_SWAP),
    ];
    Ok(Report { runs: times[0].done.len(), figures, goals, remarks: Vec::new(), not_shown: NOT_SHOWN })
}
