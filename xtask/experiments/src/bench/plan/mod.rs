//! The same course on paper and through a daemon.

mod series;

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
use plimsoll_sim::{Scenario, Simulation};
use plimsoll_units::Bytes;

use self::series::Look;
use super::follow::follow;
use super::goal::Goal;
use super::report::{Figure, Report};

/// What a VM has may differ by this much of the host's memory, in percent.
const MOST: f64 = 2.0;
const COURSE: &str = include_str!("course.toml");
/// The time between two looks: a minute, divided by six.
const MINUTE: Duration = Duration::from_secs(10);
/// Looks come this much before the end of a minute, so that what changes then is not in them yet.
const BEFORE_END: Duration = Duration::from_millis(500);
/// The model leaves out compression; no page is compressed by the daemon either.
const NO_STORE: &str = "largest_store = 0\n";

const NOT_SHOWN: &str = "Guests are models, threads of their VMMs, which free what they do not use: page cache, and what a \
    guest's kernel does when it lacks memory, are not in it, nor are sharing and compression. Both sides draw random samples, and not \
    the same ones. Periods of samples, and the course with them, are six times as short as by default; what the daemon does each \
    second, and the speed of guests and disks, are not.";

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask bench plan\n  cargo xtask bench plan --json")]
pub struct PlanArgs {
    /// As its last line, print the figures as one JSON object.
    #[arg(long)]
    json: bool,
}

/// All VMs at each look.
type Course = Vec<Vec<Look>>;

/// Measures and reports; fails where the courses differ by more than the goal.
pub(crate) fn run(arguments: &PlanArgs) -> Result<ExitCode> {
    let scenario = scenario()?;
    workspace::build_for_models()?;
    let paper = on_paper(&scenario)?;
    let host = &scenario.host;
    let settings = format!(
        "sample_period = {}\nsample_pages = {}\n{NO_STORE}",
        host.sample_period.as_secs(),
        host.sample_pages
    );
    let stage = Stage::open_with(host.memory, &settings)?;
    let earnest = in_earnest(&stage, &scenario, &paper);
    report(&scenario, &paper, &stage.explained(earnest)?)?.print(arguments.json)
}

fn scenario() -> Result<Scenario> {
    Scenario::from_toml(COURSE, &|file| Err(format!("{file}: a course names no file")))
        .map_err(|e| anyhow!(e))
}

/// Returns what the simulator makes of it.
fn on_paper(scenario: &Scenario) -> Result<Course> {
    let steps = u32::try_from(MINUTE.as_millis() / scenario.step.as_millis())?;
    let mut simulation = Simulation::new(scenario.clone());
    let mut course = Vec::new();
    for done in 1.. {
        if !simulation.step() {
            break;
        }
        if done % steps == 0 {
            course.push(simulation.frame().vms.iter().map(Look::on_paper).collect());
        }
    }
    Ok(course)
}

/// Runs it on model guests. Beside each look it tells the one on `paper`.
fn in_earnest(stage: &Stage, scenario: &Scenario, paper: &Course) -> Result<Course> {
    step(&format!("starting {} model guests on {}", scenario.vms.len(), scenario.host.memory));
    for vm in &scenario.vms {
        stage.run(&Definition::new(&vm.name, vm.size.bytes(), Runs::Model))?;
    }
    let guests = scenario.vms.iter().map(|vm| stage.toucher(&vm.name)).collect::<Result<Vec<Toucher>>>()?;
    step(&format!("they follow their demand for {} s", scenario.duration.as_secs()));
    let (begin, over) = (Instant::now(), AtomicBool::new(false));
    thread::scope(|scope| {
        let followers: Vec<_> = guests
            .into_iter()
            .zip(&scenario.vms)
            .map(|(mut guest, vm)| {
                let over = &over;
                scope.spawn(move || follow(&mut guest, &vm.guest.demand, begin, over))
            })
            .collect();
        let course = look_on(stage, scenario, begin, paper);
        over.store(true, Ordering::Relaxed);
        for follower in followers {
            follower.join().map_err(|_| anyhow!("the thread of a guest has panicked"))??;
        }
        course
    })
}

fn look_on(stage: &Stage, scenario: &Scenario, begin: Instant, paper: &Course) -> Result<Course> {
    let mut course = Vec::new();
    for (minute, on_paper) in (1..).zip(paper) {
        let at = begin + MINUTE * minute - BEFORE_END;
        thread::sleep(at.saturating_duration_since(Instant::now()));
        let vms = stage.vms()?;
        let mut looks = Vec::new();
        for (vm, on_paper) in scenario.vms.iter().zip(on_paper) {
            let found = vms.iter().find(|found| found.name.as_str() == vm.name);
            let look = Look::in_earnest(found.with_context(|| format!("{} has gone", vm.name))?);
            note(&format!("minute {minute}, {:8} on paper   {}", vm.name, in_words(on_paper)));
            note(&format!("minute {minute}, {:8} in earnest {}", vm.name, in_words(&look)));
            looks.push(look);
        }
        course.push(looks);
    }
    Ok(course)
}

fn in_words(look: &Look) -> String {
    let Look { has, entitlement, active, ballooned, swapped } = look;
    format!("{has} of {entitlement} entitled, {active} active, {ballooned} ballooned, {swapped} swapped")
}

fn report(scenario: &Scenario, paper: &Course, earnest: &Course) -> Result<Report> {
    let largest = series::largest(paper, earnest).context("the course is shorter than a minute")?;
    let memory = in_mib(scenario.host.memory);
    let series = |course: &Course, vm: usize| -> Vec<f64> {
        course.iter().map(|looks| in_mib(looks[vm].has)).collect()
    };
    let (mut figures, mut remarks) = (Vec::new(), Vec::new());
    for (vm, spec) in scenario.vms.iter().enumerate() {
        for (name, course) in [("on paper", paper), ("in earnest", earnest)] {
            let has = series(course, vm);
            figures.push(Figure::new(format!("{} has {name}", spec.name), "MiB", &has)?);
            let has: Vec<String> = has.iter().map(|mib| format!("{mib:.0}")).collect();
            remarks.push(format!("{} has {name}, in MiB, minute by minute: {}", spec.name, has.join(" ")));
        }
    }
    remarks.push(format!(
        "They differ most in minute {}: {} has {} on paper and {} in earnest.",
        largest.look + 1,
        scenario.vms[largest.vm].name,
        paper[largest.look][largest.vm].has,
        earnest[largest.look][largest.vm].has
    ));
    // A course that has come below clear stays there, as far as soft: a step that gives before
    // another takes is enough.
    let thresholds = scenario.host.thresholds.of(scenario.host.memory);
    let band = thresholds.clear.saturating_sub(thresholds.soft).bytes();
    remarks.push(format!(
        "Nothing is reclaimed between states clear and soft, {band} or {:.2} % of the memory: under pressure courses rest anywhere in \
         that band. The daemon counts the chunk that a VM has in hand as well.",
        in_mib(band) / memory * 100.0
    ));
    let goals = vec![Goal::at_most(
        "largest difference of what a VM has, in percent of the host's memory",
        in_mib(largest.difference) / memory * 100.0,
        MOST,
    )];
    Ok(Report { runs: 1, figures, goals, remarks, not_shown: NOT_SHOWN })
}

#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
fn in_mib(bytes: Bytes) -> f64 {
    bytes.0 as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_course_is_read_and_guests_can_follow_it() {
        let scenario = scenario().unwrap();
        let paper = on_paper(&scenario).unwrap();
        assert_eq!(paper.len(), 15);
        let has = |minute: usize, vm: usize| paper[minute - 1][vm].has;
        assert!(has(3, 1) < Bytes::mib(48) && has(6, 1) > Bytes::mib(200), "{paper:?}");
        // Together they want more than there is.
        assert!(paper[7].iter().any(|vm| vm.swapped > Bytes::ZERO), "{:?}", paper[7]);
    }
}
