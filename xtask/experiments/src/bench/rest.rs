//! A host at rest: how far targets move, and how far estimates are from the truth.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::Args;
use plimsoll_lab::workspace::{self, step};
use plimsoll_operate::Stage;
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_operate::toucher::Toucher;
use plimsoll_protocol::status::VmStatus;
use plimsoll_sim::{Curve, Demand, Point, Want};
use plimsoll_units::Bytes;

use super::follow::follow;
use super::goal::Goal;
use super::report::{Figure, Report};
use crate::stats::Spread;

const SIZE: Bytes = Bytes::mib(256);
/// Machine memory for all: some less than guests would hold, so that targets are not their sizes.
const BUDGET: Bytes = Bytes::mib(600);
/// Samples ten times as often as by default.
const SETTINGS: &str = "sample_period = 3\n";
/// Until estimates stand: six half-lives of the slow average, each of which is four periods. After
/// fewer an idle guest still looks as if it used some of what it has just written.
const SETTLE: Duration = Duration::from_secs(75);
const WATCH: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_secs(120);
/// The region that is touched once.
const COLD: u64 = 60;
/// Targets move by less than this, in percent of a VM's size.
const STEADY: f64 = 2.0;
/// Estimates are this near to the truth, in percent of a VM's size.
const NEAR: f64 = 5.0;

const NOT_SHOWN: &str = "Guests are models, threads of their VMMs, which use whole regions evenly. Samples are taken ten times as \
    often as by default. Other programs on this machine make guests touch their memory less often than they should.";

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask bench rest\n  cargo xtask bench rest --json")]
pub struct RestArgs {
    /// As its last line, print the figures as one JSON object.
    #[arg(long)]
    json: bool,
}

/// What a guest does all the time.
struct Role {
    name: &'static str,
    /// What it uses.
    uses: Bytes,
    /// What it has written once and keeps.
    keeps: Bytes,
    /// Page cache that it does not look at.
    caches: Bytes,
}

const ROLES: [Role; 3] = [
    Role { name: "idle", uses: Bytes::ZERO, keeps: Bytes::mib(16), caches: Bytes::mib(184) },
    Role { name: "half-busy", uses: Bytes::mib(100), keeps: Bytes::mib(100), caches: Bytes::ZERO },
    Role { name: "busy", uses: Bytes::mib(200), keeps: Bytes::ZERO, caches: Bytes::ZERO },
];

/// Measures and reports; fails where a goal is missed.
pub(crate) fn run(arguments: &RestArgs) -> Result<ExitCode> {
    workspace::build_for_models()?;
    let stage = Stage::open_with(BUDGET, SETTINGS)?;
    let result = at_rest(&stage);
    report(&stage.explained(result)?)?.print(arguments.json)
}

/// Returns looks at all VMs.
fn at_rest(stage: &Stage) -> Result<Vec<Vec<VmStatus>>> {
    step(&format!(
        "an idle, a half-busy and a busy guest of {SIZE} come to rest, for {} s",
        SETTLE.as_secs()
    ));
    for role in &ROLES {
        stage.run(&Definition::new(role.name, SIZE, Runs::Model))?;
    }
    let mut guests = Vec::new();
    for role in &ROLES {
        let mut guest = stage.toucher(role.name)?;
        if role.keeps > Bytes::ZERO {
            guest.ask(&format!("touch {} {COLD}", role.keeps.0), LIMIT)?;
        }
        guest.ask(&format!("cache {}", role.caches.0), LIMIT)?;
        guests.push(guest);
    }
    while_busy(guests, || {
        thread::sleep(SETTLE);
        step(&format!("they are watched, for {} s", WATCH.as_secs()));
        let end = Instant::now() + WATCH;
        let mut looks = Vec::new();
        while Instant::now() < end {
            looks.push(ROLES.iter().map(|role| stage.vm(role.name)).collect::<Result<Vec<_>>>()?);
            thread::sleep(LOOK);
        }
        Ok(looks)
    })
}

/// Runs `work` while the guests use what their roles have them use.
fn while_busy<T>(guests: Vec<Toucher>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (begin, over) = (Instant::now(), AtomicBool::new(false));
    thread::scope(|scope| {
        let over = &over;
        let busy: Vec<_> = guests
            .into_iter()
            .zip(&ROLES)
            .map(|(mut guest, role)| scope.spawn(move || follow(&mut guest, &always(role.uses), begin, over)))
            .collect();
        let result = work();
        over.store(true, Ordering::Relaxed);
        for busy in busy {
            busy.join().map_err(|_| anyhow!("the thread of a guest has panicked"))??;
        }
        result
    })
}

fn always(active: Bytes) -> Demand {
    let want = Want { active, content: None };
    let points = vec![Point { at: Duration::ZERO, ramp: Duration::ZERO, want }];
    Demand { curve: Curve::Points(points), jitter: 0.0, spread: Duration::ZERO }
}

fn report(looks: &[Vec<VmStatus>]) -> Result<Report> {
    let (mut figures, mut goals) = (Vec::new(), Vec::new());
    for (i, role) in ROLES.iter().enumerate() {
        let series = |of: fn(&VmStatus) -> Bytes| looks.iter().map(move |vms| percent(of(&vms[i])));
        let targets = Spread::of(series(|vm| vm.target), 3);
        let moved = targets.map_or(f64::NAN, |spread| spread.max - spread.min);
        let estimates: Vec<f64> = series(|vm| vm.active).collect();
        let truth = percent(role.uses);
        let figure = Figure::new(format!("{}: estimate", role.name), "% of size", &estimates)?;
        let off = (figure.spread.median - truth).abs();
        figures.push(Figure::new(format!("{}: truth", role.name), "% of size", &[truth])?);
        figures.push(figure);
        let targets: Vec<f64> = series(|vm| vm.target).collect();
        figures.push(Figure::new(format!("{}: target", role.name), "% of size", &targets)?);
        goals.push(Goal::at_most(
            &format!("{}: its target moves, in percent of its size", role.name),
            moved,
            STEADY,
        ));
        goals.push(Goal::at_most(
            &format!("{}: its estimate is off, in percent of its size", role.name),
            off,
            NEAR,
        ));
    }
    Ok(Report { runs: 1, figures, goals, remarks: Vec::new(), not_shown: NOT_SHOWN })
}

#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
fn percent(bytes: Bytes) -> f64 {
    bytes.0 as f64 / SIZE.0 as f64 * 100.0
}
