//! `cargo xtask test`: everything that is tested, in one place, from the quick to the slow.
//!
//! The steps of [`source`] look at the code as it is written; those of [`scenarios`] run the programs in the lab. Every step
//! runs even when one before it failed, so that one run tells all that is wrong.

mod scenarios;
mod source;

use std::fmt;
use std::process::ExitCode;
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

/// Results so far.
#[derive(Debug, Default)]
struct Tally {
    results: Vec<(String, bool, Duration)>,
    tried_again: Vec<String>,
}

impl Tally {
    /// Runs `work` as the step `name`, and says how it went.
    fn run(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        step(name);
        let begin = Instant::now();
        let result = work();
        let took = begin.elapsed();
        match &result {
            Ok(()) => note(&format!("passed in {}", Seconds(took))),
            Err(error) => note(&format!("FAILED in {}: {error:#}", Seconds(took))),
        }
        self.results.push((name.to_owned(), result.is_ok(), took));
    }

    /// Remembers that `name` needed another try.
    fn tried_again(&mut self, name: String) {
        self.tried_again.push(name);
    }

    #[expect(clippy::print_stdout, reason = "the summary is the result")]
    fn summary(&self) -> bool {
        println!();
        for (name, passed, took) in &self.results {
            println!(
                "{}  {:>7}  {name}",
                if *passed { "passed" } else { "FAILED" },
                Seconds(*took).to_string()
            );
        }
        for name in &self.tried_again {
            println!("tried again: {name}");
        }
        let passed = self.results.iter().filter(|(_, passed, _)| *passed).count();
        let failed = self.results.len() - passed;
        println!("\n{passed} passed, {failed} failed");
        failed == 0
    }
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
    let mut tally = Tally::default();
    for step in source::STEPS.iter().filter(|step| arguments.wants(step.name)) {
        tally.run(step.name, || step.run(arguments.verbose));
    }
    scenarios::run(arguments, &mut tally);
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
