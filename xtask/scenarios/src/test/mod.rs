//! `cargo xtask test`: everything that is tested, in one place, from the quick to the slow.
//!
//! The steps of [`source`] look at the code as it is written; [`fuzz`] sends it what others could
//! send; the Debian package is installed in a Debian of its own; those of [`scenarios`] run the
//! programs in the lab. Every step runs even when one before it failed, so that one run tells all
//! that is wrong. Nothing is tried again, but for one fault of the
//! [`emulator`](plimsoll_lab::emulator) in a run.

mod arguments;
mod images;
mod prometheus;
mod scenarios;
mod source;
mod tally;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use plimsoll_lab::workspace::note;

use self::tally::{Seconds, Tally};
use crate::fuzz;
use crate::system::SCENARIOS;

pub use self::arguments::TestArgs;

/// The step that runs all fuzz targets for a short time.
const FUZZ: &str = "fuzz";
/// The step that installs and removes the Debian package.
const PACKAGE: &str = "package";

/// Runs what `arguments` ask for.
pub fn run(arguments: &TestArgs) -> Result<ExitCode> {
    if arguments.list {
        list();
        return Ok(ExitCode::SUCCESS);
    }
    for name in &arguments.only {
        let known = [FUZZ, images::NAME, prometheus::NAME, PACKAGE].contains(&name.as_str())
            || source::STEPS.iter().any(|step| step.name == name)
            || SCENARIOS.iter().any(|s| s.name == name);
        ensure!(known, "no test is called {name:?}: see `cargo xtask test --list`");
    }
    let begin = Instant::now();
    let tally = Tally::default();
    for step in source::STEPS.iter().filter(|step| arguments.wants(step.name)) {
        tally.run(step.name, || step.run(arguments.verbose));
    }
    if arguments.wants(FUZZ) {
        tally.run(FUZZ, fuzz::short);
    }
    if arguments.wants(images::NAME) {
        tally.run(images::NAME, images::check);
    }
    if arguments.wants(prometheus::NAME) {
        tally.run(prometheus::NAME, prometheus::check);
    }
    if arguments.wants(PACKAGE) {
        tally.run(PACKAGE, plimsoll_package::check);
    }
    scenarios::run(arguments, &tally);
    let all_passed = tally.summary();
    note(&format!("in {}", Seconds(begin.elapsed())));
    Ok(if all_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "the list is the result")]
fn list() {
    for step in source::STEPS {
        println!("{:<13} {}", step.name, step.about);
    }
    println!("{FUZZ:<13} 10^6 inputs that a fuzzer makes up, for everything that reads what others send");
    println!("{:<13} qemu-img finds no fault in images that were worked on", images::NAME);
    println!(
        "{:<13} Debian's Prometheus scrapes a daemon; metrics and rules are well made",
        prometheus::NAME
    );
    println!("{PACKAGE:<13} the Debian package installs, upgrades, is removed and leaves nothing behind");
    for scenario in SCENARIOS {
        let place = match (scenario.hosts.is_empty(), scenario.slow) {
            (true, _) => "",
            (false, false) => " (lab)",
            (false, true) => " (lab, slow: only by name)",
        };
        println!("{:<13} {}{place}", scenario.name, scenario.about);
    }
}
