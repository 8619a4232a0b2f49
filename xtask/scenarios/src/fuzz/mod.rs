//! `cargo xtask fuzz`: what others can send to Plimsoll, under libFuzzer.
//!
//! All targets are in one program, `fuzz/` in the repository, which is a workspace of its own.
//! [`program`] builds it with coverage counters, [`process`] runs it for one target, [`outcome`] is
//! what came of that. Start reading at [`TARGETS`].

mod arguments;
mod outcome;
mod process;
mod program;
mod targets;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Result, ensure};
use plimsoll_lab::workspace;

pub use self::arguments::FuzzArgs;
use self::outcome::Outcome;
use self::process::Limit;
use self::targets::{TARGETS, Target};

/// Processes at once: one for each processor of the smallest machine that tests run on.
const SIDE_BY_SIDE: usize = 2;

/// Executions of all targets together, where nothing else is asked for.
const EXECUTIONS: u64 = 1_000_000;

/// Does what `arguments` ask for. The exit code is 0 where nothing was found.
///
/// # Errors
/// A target that does not exist; the program cannot be built or run.
pub fn run(arguments: &FuzzArgs) -> Result<ExitCode> {
    if arguments.list {
        list();
        return Ok(ExitCode::SUCCESS);
    }
    for name in &arguments.targets {
        let known = TARGETS.iter().any(|target| target.name == name);
        ensure!(known, "there is no target {name:?}: see `cargo xtask fuzz --list`");
    }
    let wanted = |target: &&Target| {
        arguments.targets.is_empty() || arguments.targets.iter().any(|name| name == target.name)
    };
    let wanted: Vec<&Target> = TARGETS.iter().filter(wanted).collect();
    if let Some(input) = &arguments.input {
        ensure!(arguments.targets.len() == 1, "--input needs one target: name the one that it is for");
        return process::reproduce(&program::build()?, wanted[0], input);
    }
    let outcomes = fuzz(&wanted, Limit::of(arguments))?;
    let passed = outcomes.iter().all(|outcome| outcome.crash.is_none());
    show(&outcomes, arguments.json);
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs all targets for a short time.
///
/// # Errors
/// The program cannot be built or run, or what was found.
pub(crate) fn short() -> Result<()> {
    let wanted: Vec<&Target> = TARGETS.iter().collect();
    let outcomes = fuzz(&wanted, Limit::Executions(EXECUTIONS))?;
    show(&outcomes, false);
    let crashes: Vec<String> = outcomes.iter().filter_map(Outcome::complaint).collect();
    ensure!(crashes.is_empty(), "{}", crashes.join("\n"));
    Ok(())
}

/// Runs `targets`, each within `limit`.
fn fuzz(targets: &[&Target], limit: Limit) -> Result<Vec<Outcome>> {
    let program = program::build()?;
    let queue: Mutex<VecDeque<_>> = Mutex::new(targets.iter().copied().enumerate().collect());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some((index, target)) = next() {
                    let outcome = process::run(&program, target, targets, limit);
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((index, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

#[expect(clippy::print_stdout, reason = "the outcome is the result")]
fn show(outcomes: &[Outcome], json: bool) {
    print!("{}", outcome::table(outcomes));
    for complaint in outcomes.iter().filter_map(Outcome::complaint) {
        println!("{complaint}");
    }
    if json {
        println!("{}", outcome::json(outcomes));
    }
}

#[expect(clippy::print_stdout, reason = "the list is the result")]
fn list() {
    for target in TARGETS {
        println!("{:<15} {}", target.name, target.about);
    }
}

/// What runs leave behind: the inputs that they have found, by target, and those that crash.
fn left() -> PathBuf {
    workspace::root().join("target/fuzz")
}
