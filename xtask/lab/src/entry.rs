//! How a program begins that the lab carries.

use std::process::{self, ExitCode};

use anyhow::Result;

use crate::inside::init;

/// Runs `run`, and shows its error at the terminal. In the lab, where this program is the first
/// process, it makes a host of the bare kernel instead.
#[expect(clippy::print_stderr, reason = "errors are for the person at the terminal")]
pub fn main(run: impl FnOnce() -> Result<ExitCode>) -> ExitCode {
    let result = if process::id() == 1 { init::main().map(|()| ExitCode::FAILURE) } else { run() };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
