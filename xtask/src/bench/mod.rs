//! Benchmarks: each compares with a baseline in the same run and says what it does not show.

mod boot;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Start-up time and memory of our VMM, against QEMU's microvm machine.
    Boot(boot::BootArgs),
}

impl Bench {
    /// Measures and reports.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Boot(arguments) => boot::run(&arguments),
        }
    }
}
