//! How soon a guest that turns busy has the memory that others only sit on.

mod proxmox;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use plimsoll_lab::workspace::{self, note, step};
use plimsoll_operate::Stage;
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_operate::toucher::Toucher;
use plimsoll_units::Bytes;

use super::goal::Goal;
use super::report::{Figure, Report, ratios};

/// How much longer than with free memory it may take where others' balloons bring the memory.
const BY_BALLOON: f64 = 2.0;
/// The same where others' pages can be swapped out.
const BY_SWAP: f64 = 0.2;

const SIZE: Bytes = Bytes::mib(256);
const VMS: usize = 4;
/// Machine memory for all of them where it is short.
const BUDGET: Bytes = Bytes::mib(640);
/// What an idle guest has of its own, and its page cache.
const KEPT: Bytes = Bytes::mib(16);
const CACHED: Bytes = Bytes::mib(184);
/// What Proxmox VE leaves each VM at least, as its operator has it.
const MINIMUM: Bytes = Bytes::mib(64);
/// What the busy guest comes to need. With true use the exact division gives it its whole size: the
/// others use 16 MiB each.
const NEEDED: Bytes = Bytes::mib(232);
/// The part of that that counts as having it: 95 %.
const ENOUGH: Bytes = Bytes(NEEDED.0 / 20 * 19);

/// Until idle guests are seen to be idle: some half-lives of the slow average of samples of 1 s.
const REST: Duration = Duration::from_secs(20);
/// How often it is looked at what the busy guest has.
const LOOK: Duration = Duration::from_millis(5);
const LIMIT: Duration = Duration::from_secs(120);

const NOT_SHOWN: &str = "Guests are models, threads of their VMMs on this machine's processors: they have no kernel, so no \
    balloon driver that clears pages, and page cache that is dropped at once and never read again. What idle guests hold is page \
    cache. Samples are taken fifteen times as often as by default, so that idle guests are believed idle within a run. Proxmox' rule is run by this program, which sets limits; pages go to and from Plimsoll's swap space then, and \
    balloons move at Plimsoll's speed. Free page reporting stands with swap space beside it, as on a host without balloons: page cache \
    is not free, and is swapped out.";

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
    limits: Limits,
    /// Guests report free pages.
    reports: bool,
}

/// Which limits VMs have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limits {
    /// Their sizes.
    None,
    /// Equal parts of the memory.
    Equal,
    /// The same at first, and then as Proxmox VE would size their balloons.
    Proxmox,
}

const NO_PAGING: &str = "sample_period = 1\nlargest_store = 0\nswap.enabled = false\n";
const SWAP: &str = "sample_period = 1\n";

/// No balloon to speak of.
const NO_BALLOON: &str = "sample_period = 1\nlargest_balloon = 1\n";

const WAYS: [Way; 6] = [
    Way::new("memory is free", NO_PAGING).on(Bytes::mib(2048)),
    Way::new("balloons", NO_PAGING),
    Way::new("balloons and swap", SWAP),
    Way::new("equal limits and swap", SWAP).within(Limits::Equal),
    Way::new("Proxmox' rule and swap", SWAP).within(Limits::Proxmox),
    Way { reports: true, ..Way::new("free page reporting and swap", NO_BALLOON) },
];

impl Way {
    const fn new(name: &'static str, settings: &'static str) -> Self {
        Self { name, budget: BUDGET, settings, limits: Limits::None, reports: false }
    }

    const fn on(self, budget: Bytes) -> Self {
        Self { budget, ..self }
    }

    const fn within(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }
}

/// What one way showed, run by run.
#[derive(Debug, Default)]
struct Times {
    /// Seconds until the busy guest had enough; those in which it never had are not here.
    enough: Vec<f64>,
    /// Seconds until it had touched all.
    done: Vec<f64>,
    /// Seconds in which an idle guest then verifies what it kept, the slowest of them.
    idle: Vec<f64>,
    /// MiB of page cache that an idle guest has dropped, in the mean.
    dropped: Vec<f64>,
    /// MiB of an idle guest that are swapped out, in the mean.
    swapped: Vec<f64>,
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
            note(&format!("{}: touched all after {:.2} s", way.name, one.done.iter().sum::<f64>()));
            if turn > 0 {
                times.enough.append(&mut one.enough);
                times.done.append(&mut one.done);
                times.idle.append(&mut one.idle);
                times.dropped.append(&mut one.dropped);
                times.swapped.append(&mut one.swapped);
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
        definition.reports_free_pages = way.reports;
        stage.run(&definition)?;
        if way.limits != Limits::None {
            let part = Bytes(way.budget.0 / VMS as u64).to_string();
            stage.succeed(&["set", name, "--limit", &part])?;
        }
    }
    let guests = names.iter().map(|name| stage.toucher(name)).collect::<Result<Vec<Toucher>>>()?;
    if way.limits != Limits::Proxmox {
        return turn_busy(stage, &names, guests, times);
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let ruler = scope.spawn(|| rule(stage, &over));
        let result = turn_busy(stage, &names, guests, times);
        over.store(true, Ordering::Relaxed);
        ruler.join().map_err(|_| anyhow!("the thread that sets limits has panicked"))??;
        result
    })
}

/// Sets limits as Proxmox VE would size balloons, until it is `over`.
fn rule(stage: &Stage, over: &AtomicBool) -> Result<()> {
    let mut next = Instant::now() + proxmox::PERIOD;
    while !over.load(Ordering::Relaxed) {
        thread::sleep(LOOK);
        if Instant::now() < next {
            continue;
        }
        next += proxmox::PERIOD;
        let (host, vms) = (stage.host()?, stage.vms()?);
        let seen: Vec<proxmox::Vm> = vms
            .iter()
            .map(|vm| proxmox::Vm {
                size: vm.size,
                minimum: MINIMUM,
                has: vm.limit,
                free: vm.guest.map_or(Bytes::ZERO, |guest| guest.free),
            })
            .collect();
        let to = proxmox::balloons(host.budget, host.budget.saturating_sub(host.free), &seen);
        for (vm, to) in vms.iter().zip(to).filter(|(vm, to)| vm.limit != *to) {
            stage.succeed(&["set", vm.name.as_str(), "--limit", &Bytes(to.0 >> 20 << 20).to_string()])?;
        }
    }
    Ok(())
}

fn turn_busy(stage: &Stage, names: &[String], mut guests: Vec<Toucher>, times: &mut Times) -> Result<()> {
    let (name, mut busy) = names.last().zip(guests.pop()).context("there are guests")?;
    for guest in &mut guests {
        guest.ask(&format!("touch {} 2", KEPT.0), LIMIT)?;
        guest.ask(&format!("cache {}", CACHED.0), LIMIT)?;
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
    let vms = stage.vms()?;
    let idle = || vms.iter().filter(|vm| vm.name.as_str() != name);
    let mean = |sum: Bytes| in_mib(sum) / f64::from(u32::try_from(VMS - 1).unwrap_or(u32::MAX));
    let cached = idle().map(|vm| vm.guest.map_or(Bytes::ZERO, |guest| guest.cache)).sum();
    times.dropped.push(in_mib(CACHED) - mean(cached));
    times.swapped.push(mean(idle().map(|vm| vm.paging.swapped).sum()));
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
    let free = &times[0];
    for (way, times) in WAYS.iter().zip(times) {
        // A guest whose limit stops it never has enough.
        if !times.enough.is_empty() {
            figures.push(Figure::new(format!("{}: has {NEEDED}", way.name), "s", &times.enough)?);
        }
        figures.push(Figure::new(format!("{}: has touched all of it", way.name), "s", &times.done)?);
        let work: Vec<f64> = ratios(&free.done, &times.done).iter().map(|ratio| ratio * 100.0).collect();
        figures.push(Figure::new(format!("{}: its work, with free memory 100", way.name), "%", &work)?);
        figures.push(Figure::new(format!("{}: an idle guest then verifies", way.name), "s", &times.idle)?);
        figures.push(Figure::new(format!("{}: an idle guest has dropped", way.name), "MiB", &times.dropped)?);
        figures.push(Figure::new(format!("{}: of an idle guest swapped", way.name), "MiB", &times.swapped)?);
    }
    let median = |way: usize| Figure::new("", "s", &times[way].enough).map(|figure| figure.spread.median);
    let (free, balloons, swap) = (median(0)?, median(1)?, median(2)?);
    let done = |way: usize| Figure::new("", "s", &times[way].done).map(|figure| figure.spread.median);
    let of_proxmox = done(2)? / done(4)?;
    let goals = vec![
        Goal::at_most("seconds that it waits for it, by balloons", (balloons - free).max(0.0), BY_BALLOON),
        Goal::at_most("seconds that it waits for it, by balloons and swap", (swap - free).max(0.0), BY_SWAP),
        Goal::at_most("time for its work, by balloons and swap, of that by Proxmox' rule", of_proxmox, 1.0),
    ];
    Ok(Report { runs: times[0].done.len(), figures, goals, remarks: Vec::new(), not_shown: NOT_SHOWN })
}

#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
fn in_mib(bytes: Bytes) -> f64 {
    bytes.0 as f64 / f64::from(1 << 20)
}
