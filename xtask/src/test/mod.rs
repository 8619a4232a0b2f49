//! `cargo xtask test`: everything that is tested, in one place, from the quick to the slow.
//!
//! The steps of [`source`] look at the code as it is written; those of [`scenarios`] run the programs
//! in the lab. Every step runs even when one before it failed, so that one run tells all that is
//! wrong. Nothing is tried again, but for one fault of the [`emulator`] in a run.

mod emulator;
mod scenarios;
mod source;

use std::fmt;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use crate::system::SCENARIOS;
use crate::workspace::{note, step};

#[derive(Clone, Debug, Args)]
pub(crate) struct TestArgs {
    /// Run only the step or system test of this name. May be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Name all steps and system tests, and run nothing.
    #[arg(long)]
    list: bool,
    /// Leave out what needs the lab.
    #[arg(long)]
    no_lab: bool,
    /// Run every system test on every host: kernels 6.1 and 6.12, nested paging on and off.
    #[arg(long)]
    matrix: bool,
    /// Show what the steps print, not only when they fail.
    #[arg(short, long)]
    verbose: bool,
}

impl TestArgs {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

/// Results so far. Steps may run side by side.
#[derive(Debug, Default)]
struct Tally {
    results: Mutex<Vec<(String, bool, Duration)>>,
    emulator_faults: Mutex<Vec<String>>,
}

impl Tally {
    /// Runs `work` as the step `name`, and says how it went.
    fn run(&self, name: &str, work: impl FnOnce() -> Result<()>) {
        step(name);
        let begin = Instant::now();
        let result = work();
        let took = begin.elapsed();
        match &result {
            Ok(()) => note(&format!("{name}: passed in {}", Seconds(took))),
            Err(error) => note(&format!("{name}: FAILED in {}: {error:#}", Seconds(took))),
        }
        push(&self.results, (name.to_owned(), result.is_ok(), took));
    }

    /// Counts a fault of the emulator in the step `name`. Whether it is excused: the run's first is.
    fn excuses(&self, name: &str, signature: &str) -> bool {
        push(&self.emulator_faults, format!("{name}: {signature}")) == 1
    }

    #[expect(clippy::print_stdout, reason = "the summary is the result")]
    fn summary(self) -> bool {
        let results = self.results.into_inner().unwrap_or_else(PoisonError::into_inner);
        println!();
        for (name, passed, took) in &results {
            println!(
                "{}  {:>7}  {name}",
                if *passed { "passed" } else { "FAILED" },
                Seconds(*took).to_string()
            );
        }
        let faults = self.emulator_faults.into_inner().unwrap_or_else(PoisonError::into_inner);
        println!("\nemulator faults: {}", faults.len());
        for (index, fault) in faults.iter().enumerate() {
            let verdict = if index == 0 { "excused, and run again" } else { "not excused" };
            println!("  {verdict}: {fault}");
        }
        let passed = results.iter().filter(|(_, passed, _)| *passed).count();
        let failed = results.len() - passed;
        println!("\n{passed} passed, {failed} failed");
        failed == 0
    }
}

/// Appends `item`, and returns the list's new length.
fn push<T>(list: &Mutex<Vec<T>>, item: T) -> usize {
    // A list that only grows is whole after any panic.
    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
    list.push(item);
    list.len()
}

/// A duration to a tenth of a second.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

/// Runs what `arguments` ask for.
pub(crate) fn run(arguments: &TestArgs) -> Result<ExitCode> {
    if arguments.list {
        list();
        return Ok(ExitCode::SUCCESS);
    }
    for name in &arguments.only {
        let known =
            source::STEPS.iter().any(|step| step.name == name) || SCENARIOS.iter().any(|s| s.name == name);
        ensure!(known, "no test is called {name:?}: see `cargo xtask test --list`");
    }
    let begin = Instant::now();
    let tally = Tally::default();
    for step in source::STEPS.iter().filter(|step| arguments.wants(step.name)) {
        tally.run(step.name, || step.run(arguments.verbose));
    }
    scenarios::run(arguments, &tally);
    let all_passed = tally.summary();
    note(&format!("in {}", Seconds(begin.elapsed())));
    Ok(if all_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "the list is the result")]
fn list() {
    for step in source::STEPS {
        println!("{:<12} {}", step.name, step.about);
    }
    for scenario in SCENARIOS {
        println!("{:<12} {} (lab)", scenario.name, scenario.about);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fault_of_the_emulator_is_excused_in_a_run() {
        let tally = Tally::default();
        assert!(tally.excuses("boot", "no processor can have EFLAGS 0x4100a606"));
        assert!(!tally.excuses("greedy", "the lab's own kernel died"));
        assert!(!tally.excuses("boot", "the lab's own kernel died"));
    }
}
