//! `cargo xtask`, its first part: looks for what the command needs, then builds and runs `xtask`.

use std::convert::Infallible;
use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Error, Result};
use preflight::{Needs, kvm, say};

#[expect(clippy::print_stderr, reason = "errors are for the person at the terminal")]
fn main() -> ExitCode {
    let Err(error) = run();
    eprintln!("xtask: {error:#}");
    ExitCode::FAILURE
}

/// Comes back only with an error: this process becomes cargo, and then `xtask`.
fn run() -> Result<Infallible> {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let words: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some(needs) = Needs::of(&words, kvm::usable().is_ok()) {
        preflight::check(&words, &needs)?;
    }
    let own = env::current_exe().context("finding this program's own file")?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg("run");
    if own.with_file_name("xtask").is_file() {
        cargo.arg("--quiet");
    } else {
        say::step("building cargo xtask (a minute or two, this once)");
    }
    cargo.args(["--release", "--package", "xtask", "--"]).args(arguments);
    Err(Error::new(cargo.exec()).context("starting cargo"))
}
