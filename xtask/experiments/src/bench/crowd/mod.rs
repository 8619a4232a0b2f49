//! Many VMs that all want more than the host has, and nothing that could be paged out.

mod course;
mod look;
mod pagers;

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use plimsoll_lab::workspace::{self, note, step};
use plimsoll_operate::Stage;
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_operate::toucher::Toucher;
use plimsoll_units::Bytes;

use self::course::Course;
use self::look::Look;
use super::goal::Goal;
use super::report::{Figure, Report};

const SIZE: Bytes = Bytes::mib(64);
/// What each guest wants. Entitlements are some 30 MiB.
const TOUCHED: Bytes = Bytes::mib(56);
/// Portions of that where guests grow side by side, and how often one comes. The daemon decides
/// once a second: faster, and the first guests have all that they want before it has looked.
const PORTIONS: u64 = 14;
const PORTION_EVERY: Duration = Duration::from_secs(2);
/// Machine memory for each VM: 4 GiB for 100.
const PART: Bytes = Bytes::mib(40);
/// No page can be taken from a guest: there is no swap space, and patterns do not shrink.
const SETTINGS: &str = "swap.enabled = false\n";

/// How often VMs are looked at. The daemon decides once a second.
const LOOK: Duration = Duration::from_millis(250);
/// How often progress is told.
const TELL: Duration = Duration::from_secs(5);
/// The shares of the VM that is raised: its entitlement is its size then.
const RAISED: &str = "100000";
/// The percentage of an entitlement that counts as having it.
const ENOUGH: u64 = 95;
/// A VM that has it by then only has it for another reason.
const RAISE_LIMIT: Duration = Duration::from_secs(30);
const RAISE_LOOK: Duration = Duration::from_millis(50);

/// Seconds until shares that were raised have their effect.
const SERVED_WITHIN: f64 = 5.0;
/// All pagers together, in percent of one processor.
const MOST_PAGERS: f64 = 5.0;
/// Milliseconds for an answer to `GET /v1/host`.
const MOST_ANSWER: f64 = 2.0;

const NOT_SHOWN: &str = "Guests are models, threads of their VMMs. They have no page cache and reclaim nothing by \
    themselves, so a guest that lacks memory stands still at once. All VMs are equal but for the one whose shares are raised. \
    Times of answers are those of a client on the same processors as a hundred VMMs; other programs make them longer.";

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench crowd\n  cargo xtask bench crowd --abreast --vms 40 --json"
)]
pub struct CrowdArgs {
    /// VMs of 64 MiB, for each of which the host has 40 MiB.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(4..=200))]
    vms: u32,
    /// Guests come to want their memory side by side, 4 MiB every 2 s, and not all of it at once:
    /// none has much more than it is entitled to when memory runs short.
    #[arg(long)]
    abreast: bool,
    /// Seconds until the VMs count as at rest.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=600))]
    rest: u32,
    /// Seconds for which they are then watched.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    watch: u32,
    /// As its last line, print the figures as one JSON object.
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Debug)]
struct Measured {
    course: Course,
    /// Percent of a processor.
    pagers: f64,
    raised: Raised,
}

/// The VM whose shares were raised, before and after.
#[derive(Debug)]
struct Raised {
    name: String,
    entitlement: Bytes,
    before: Bytes,
    after: Bytes,
    /// Seconds until it had it; `None`: it did not have it in [`RAISE_LIMIT`].
    seconds: Option<f64>,
}

/// Measures and reports; fails where a goal is missed.
pub(crate) fn run(arguments: &CrowdArgs) -> Result<ExitCode> {
    workspace::build_for_models()?;
    let budget = Bytes(PART.0 * u64::from(arguments.vms));
    let stage = Stage::open_with(budget, SETTINGS)?;
    let result = crowd(&stage, arguments);
    let measured = stage.explained(result)?;
    let report = report(&measured)?;
    if report.goals.iter().any(|goal| !goal.met) {
        look_closer(&stage, &measured)?;
    }
    report.print(arguments.json)
}

fn crowd(stage: &Stage, arguments: &CrowdArgs) -> Result<Measured> {
    let names: Vec<String> = (1..=arguments.vms).map(|n| format!("guest{n:03}")).collect();
    step(&format!("starting {} model guests of {SIZE}, of which each wants {TOUCHED}", names.len()));
    for name in &names {
        stage.run(&Definition::new(name, SIZE, Runs::Model))?;
    }
    let mut guests = names.iter().map(|name| stage.toucher(name)).collect::<Result<Vec<Toucher>>>()?;
    // A guest that waits obeys what was typed meanwhile when it goes on.
    let portions = if arguments.abreast { PORTIONS } else { 1 };
    for portion in 1..=portions {
        for guest in &mut guests {
            guest.send(&format!("touch {} {portion}", TOUCHED.0 / portions))?;
        }
        thread::sleep(if arguments.abreast { PORTION_EVERY } else { Duration::ZERO });
    }
    step(&format!("they come to rest, for {} s", arguments.rest));
    look_on(stage, u64::from(arguments.rest))?;
    step(&format!("they are watched, for {} s", arguments.watch));
    let pids: Vec<u32> = stage.vms()?.iter().filter_map(|vm| vm.pid).collect();
    let (begin, before) = (Instant::now(), pagers::time(&pids)?);
    let course = look_on(stage, u64::from(arguments.watch))?;
    let spent = pagers::time(&pids)?.saturating_sub(before);
    let pagers = spent.as_secs_f64() / begin.elapsed().as_secs_f64() * 100.0;
    let raised = raise(stage, &course)?;
    Ok(Measured { course, pagers, raised })
}

/// Looks at the host for `seconds`.
fn look_on(stage: &Stage, seconds: u64) -> Result<Course> {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut course = Course::default();
    let mut tell = Instant::now();
    while Instant::now() < end {
        let asked = Instant::now();
        let host = stage.host()?;
        let answered = asked.elapsed();
        let looks = stage.vms()?.iter().map(Look::of).collect();
        course.observe(&host, answered, looks);
        if Instant::now() >= tell {
            note(&course.line(&host));
            tell += TELL;
        }
        thread::sleep(LOOK);
    }
    Ok(course)
}

/// Raises the shares of the VM that has the least, and waits until it has what that entitles it to.
fn raise(stage: &Stage, course: &Course) -> Result<Raised> {
    let least = course.last().iter().filter(|vm| vm.waits).min_by_key(|vm| vm.charge);
    let least = least.context("no VM waits: the host has memory for all of them")?;
    let (name, before, old) = (least.name.clone(), least.charge, least.entitlement);
    step(&format!("{name} has {before} and gets {RAISED} shares"));
    let begin = Instant::now();
    stage.succeed(&["set", &name, "--shares", RAISED])?;
    loop {
        let vm = Look::of(&stage.vm(&name)?);
        let told = vm.entitlement > old;
        let has = told && vm.charge >= Bytes(vm.entitlement.min(TOUCHED).0 / 100 * ENOUGH);
        if has || begin.elapsed() > RAISE_LIMIT {
            let seconds = has.then(|| begin.elapsed().as_secs_f64());
            return Ok(Raised { name, entitlement: vm.entitlement, before, after: vm.charge, seconds });
        }
        thread::sleep(RAISE_LOOK);
    }
}

/// Tells why the host and the VMs that stand out have what they have.
fn look_closer(stage: &Stage, measured: &Measured) -> Result<()> {
    step("a closer look, since a goal was missed");
    let mut names = measured.course.conspicuous();
    names.retain(|name| *name != measured.raised.name);
    names.push(measured.raised.name.clone());
    let texts = std::iter::once(stage.succeed(&["explain"]))
        .chain(names.iter().map(|name| stage.succeed(&["explain", name])));
    for text in texts {
        String::from_utf8_lossy(&text?.stdout).lines().for_each(note);
    }
    Ok(())
}

fn report(measured: &Measured) -> Result<Report> {
    let Measured { course, pagers, raised } = measured;
    let answers = course.answers();
    let mut figures = vec![
        Figure::new("free memory at rest", "MiB", course.free())?,
        Figure::new("VMs that wait", "", course.waiting())?,
        Figure::new("VMs that wait below their entitlements", "", course.below())?,
        Figure::new("held beyond entitlements", "MiB", course.beyond())?,
        Figure::new("all pagers", "% of a processor", &[*pagers])?,
        Figure::new("GET /v1/host", "ms", answers)?,
        Figure::new("the raised VM had before", "MiB", &[in_mib(raised.before)])?,
        Figure::new("the raised VM has", "MiB", &[in_mib(raised.after)])?,
    ];
    if let Some(seconds) = raised.seconds {
        figures.push(Figure::new("the raised VM has what it is entitled to", "s", &[seconds])?);
    }
    let median = Figure::new("", "ms", answers)?.spread.median;
    let goals = vec![
        Goal::at_most("looks at rest at which the state is hard or low", f64::from(course.below_soft()), 0.0),
        Goal::at_most(
            "MiB that a VM above its entitlement gains while another waits below its own",
            in_mib(course.gain()),
            0.0,
        ),
        Goal::at_most(
            "seconds until raised shares have their effect",
            raised.seconds.unwrap_or(RAISE_LIMIT.as_secs_f64()),
            SERVED_WITHIN,
        ),
        Goal::at_most("all pagers, in percent of a processor", *pagers, MOST_PAGERS),
        Goal::at_most("milliseconds for GET /v1/host, in the median", median, MOST_ANSWER),
    ];
    let remarks = vec![format!(
        "{} has {} of {TOUCHED} that it wants, and is entitled to {}.",
        raised.name, raised.after, raised.entitlement
    )];
    Ok(Report { runs: 1, figures, goals, remarks, not_shown: NOT_SHOWN })
}

#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
fn in_mib(bytes: Bytes) -> f64 {
    bytes.0 as f64 / f64::from(1 << 20)
}
