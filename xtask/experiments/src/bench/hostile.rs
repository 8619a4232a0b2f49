//! Hostile VMMs that keep the daemon busy, beside honest guests.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use plimsoll_lab::workspace::{self, step};
use plimsoll_operate::Stage;
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_operate::toucher::Toucher;
use plimsoll_protocol::status::{Power, TurnStatus};
use plimsoll_units::Bytes;

use super::goal::Goal;
use super::report::{Figure, Report};

const SIZE: Bytes = Bytes::mib(64);
/// Room for all VMs at their full sizes: nothing is short, so that only the attack is seen.
const PER_VM: Bytes = Bytes::mib(80);
/// Guests of a real VMM.
const HONEST: [&str; 4] = ["real1", "real2", "real3", "real4"];
/// What each of them keeps, and what one of them takes and gives back again and again.
const KEPT: Bytes = Bytes::mib(16);
const TAKEN: Bytes = Bytes::mib(32);
/// What hostile VMMs do, by turns: see `crates/host/examples/fake_vmm/attack.rs`.
const ATTACKS: [&str; 4] = ["flood", "storm", "noisy", "returning"];
const LOOK: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_secs(60);
/// Milliseconds of a turn at the 99th percentile.
const MOST_TURN: f64 = 5.0;

const NOT_SHOWN: &str = "Honest guests are models, threads of their VMMs. Hostile VMMs, honest ones and this \
    program share the machine's processors with the daemon: on a machine with few of them a part of each time is a wait \
    for a processor. Turns that a hostile VMM makes long are shown, and not what it costs to start and end one.";

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cargo xtask bench hostile --vms 16 --json")]
pub struct HostileArgs {
    /// Hostile VMMs.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=200))]
    vms: u32,
    /// Seconds for which the daemon is watched at rest, and again under attack.
    #[arg(long, value_name = "S", default_value_t = 45, value_parser = clap::value_parser!(u32).range(25..=3600))]
    watch: u32,
    /// As its last line, print the figures as one JSON object.
    #[arg(long)]
    json: bool,
}

/// What was seen for some time.
#[derive(Debug, Default)]
struct Seen {
    /// The daemon's figures of its turns, window by window.
    turns: Vec<TurnStatus>,
    /// Milliseconds for an answer to `GET /v1/host`.
    answers: Vec<f64>,
    /// Milliseconds in which an honest guest has touched new memory.
    touches: Vec<f64>,
}

/// Measures and reports; fails where a goal is missed.
pub(crate) fn run(arguments: &HostileArgs) -> Result<ExitCode> {
    let programs = workspace::build_with_fake_vmm()?;
    let directory = tempfile::tempdir().context("making a directory")?;
    let vmm = directory.path().join("plimsoll-vmm");
    let program = |name: &str| programs.get(name).with_context(|| format!("{name} was not built"));
    fs::copy(program("fake_vmm")?, &vmm).context("copying the hostile VMM")?;
    symlink(program("plimsoll-vmm")?, directory.path().join("plimsoll-vmm-real"))?;
    let (before, after) = measure(arguments, &vmm)?;
    report(&before, &after)?.print(arguments.json)
}

fn measure(arguments: &HostileArgs, vmm: &Path) -> Result<(Seen, Seen)> {
    let vms = arguments.vms as usize + HONEST.len();
    let stage = Stage::open_with_vmm(Bytes(PER_VM.0 * vms as u64), vmm, "swap.enabled = false\n")?;
    let result = attack(&stage, arguments);
    stage.explained(result)
}

fn attack(stage: &Stage, arguments: &HostileArgs) -> Result<(Seen, Seen)> {
    step(&format!("{} honest model guests", HONEST.len()));
    let mut guests = Vec::new();
    for (name, seed) in HONEST.iter().zip(1..) {
        start(stage, name)?;
        let mut guest = stage.toucher(name)?;
        guest.ask(&format!("touch {} {seed}", KEPT.0), LIMIT)?;
        guests.push(guest);
    }
    let watch = Duration::from_secs(arguments.watch.into());
    step(&format!("the daemon is watched, for {} s", watch.as_secs()));
    let before = look_on(stage, &mut guests[0], watch)?;
    let hostile: Vec<String> =
        ATTACKS.iter().cycle().zip(1..=arguments.vms).map(|(attack, n)| format!("{attack}-{n}")).collect();
    step(&format!("{} hostile VMMs", hostile.len()));
    hostile.iter().try_for_each(|name| start(stage, name))?;
    step(&format!("the daemon is watched under attack, for {} s", watch.as_secs()));
    let after = look_on(stage, &mut guests[0], watch)?;
    for name in &hostile {
        let vm = stage.vm(name)?;
        ensure!(vm.power == Power::On, "{name} attacks no more: {:?}", vm.exit);
    }
    for guest in &mut guests {
        let right = guest.verify_all(LIMIT)?;
        ensure!(right == KEPT.0, "only {right} bytes of an honest guest were verified");
    }
    hostile.iter().try_for_each(|name| stage.succeed(&["kill", name]).map(drop))?;
    Ok((before, after))
}

fn start(stage: &Stage, name: &str) -> Result<()> {
    let mut definition = Definition::new(name, SIZE, Runs::Model);
    definition.sharing = Some("prod".to_owned());
    stage.run(&definition)
}

/// Looks at the host for `time`, while `guest` takes memory and gives it back.
fn look_on(stage: &Stage, guest: &mut Toucher, time: Duration) -> Result<Seen> {
    let end = Instant::now() + time;
    let mut seen = Seen::default();
    let mut last = stage.host()?.turns;
    // The first window began before.
    let mut whole = false;
    while Instant::now() < end {
        let asked = Instant::now();
        let turns = stage.host()?.turns;
        seen.answers.push(millis(asked.elapsed()));
        if turns != last {
            seen.turns.extend(turns.filter(|_| whole));
            (last, whole) = (turns, true);
        }
        let asked = Instant::now();
        guest.ask(&format!("touch {} 99", TAKEN.0), LIMIT)?;
        seen.touches.push(millis(asked.elapsed()));
        guest.ask("free 99", LIMIT)?;
        thread::sleep(LOOK);
    }
    Ok(seen)
}

fn report(before: &Seen, after: &Seen) -> Result<Report> {
    let mut figures = Vec::new();
    for (seen, when) in [(before, "at rest"), (after, "under attack")] {
        let turns = |of: fn(&TurnStatus) -> u64| -> Vec<f64> {
            seen.turns.iter().map(|turns| millis(Duration::from_micros(of(turns)))).collect()
        };
        figures.push(Figure::new(format!("a turn in the median, {when}"), "ms", &turns(|t| t.median_us))?);
        figures.push(Figure::new(format!("99 of 100 turns, {when}"), "ms", &turns(|t| t.p99_us))?);
        figures.push(Figure::new(format!("the longest turn, {when}"), "ms", &turns(|t| t.longest_us))?);
        let counts: Vec<f64> = seen.turns.iter().map(|turns| count(turns.count)).collect();
        figures.push(Figure::new(format!("turns in 10 s, {when}"), "", &counts)?);
        figures.push(Figure::new(format!("GET /v1/host, {when}"), "ms", &seen.answers)?);
        figures.push(Figure::new(format!("a guest touches {TAKEN}, {when}"), "ms", &seen.touches)?);
    }
    let worst = after.turns.iter().map(|turns| turns.p99_us).max().unwrap_or(u64::MAX);
    let goal = "milliseconds of a turn under attack at the 99th percentile, in the worst of all windows";
    let goals = vec![Goal::at_most(goal, millis(Duration::from_micros(worst)), MOST_TURN)];
    Ok(Report { runs: 1, figures, goals, remarks: Vec::new(), not_shown: NOT_SHOWN })
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
fn count(count: u64) -> f64 {
    count as f64
}
