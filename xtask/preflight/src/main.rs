//! `cargo xtask`, its first part: looks for what the command needs, then builds and runs the
//! program that has it.

use std::convert::Infallible;
use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, Error, Result};
use preflight::{Needs, kvm, say};

#[expect(clippy::print_stderr, reason = "errors are for the person at the terminal")]
fn main() -> ExitCode {
    let Err(error) = run();
    eprintln!("xtask: {error:#}");
    ExitCode::FAILURE
}

/// Comes back only with an error: this process becomes cargo, and then that program.
fn run() -> Result<Infallible> {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let words: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some(needs) = Needs::of(&words, kvm::usable().is_ok()) {
        preflight::check(&words, &needs)?;
    }
    let own = env::current_exe().context("finding this program's own file")?;
    let mut cargo = preflight::cargo::command();
    cargo.arg("run");
    let package = program(&words);
    if own.with_file_name(package).is_file() {
        cargo.arg("--quiet");
    } else {
        say::step("building cargo xtask (a minute or two, this once)");
    }
    cargo.args(["--release", "--package", package, "--"]).args(arguments);
    Err(Error::new(cargo.exec()).context("starting cargo"))
}

/// The package, and its program, that has the command of `arguments`. The demo is the first thing
/// that a newcomer builds, so it does without the rest.
fn program(arguments: &[String]) -> &'static str {
    match arguments.first().map(String::as_str) {
        Some("demo") => "plimsoll-demo",
        _ => "xtask",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_has_a_program_of_its_own_and_all_else_is_in_xtask() {
        let of = |line: &str| program(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!((of("demo"), of("demo --help")), ("plimsoll-demo", "plimsoll-demo"));
        for line in ["", "--help", "help demo", "lab -- demo", "inside demo"] {
            assert_eq!(of(line), "xtask", "{line}");
        }
    }
}
