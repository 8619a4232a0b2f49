//! Benchmarks: each compares with a baseline in the same run and says what it does not show.

mod boot;
mod policy;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Start-up time and memory of our VMM, against QEMU's microvm machine.
    Boot(boot::BootArgs),
    /// How long policy takes to divide a host's memory among 10 to 100,000 VMs in pools.
    Policy(policy::PolicyArgs),
}

impl Bench {
    /// Measures and reports.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Boot(arguments) => boot::run(&arguments),
            Self::Policy(arguments) => policy::run(&arguments),
        }
    }
}
