//! The campaigns that there are.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::kill::{self, KillArgs};
use crate::soak::{self, SoakArgs};

/// What to run.
#[derive(Debug, Subcommand)]
pub enum Campaign {
    /// Kill, stop and starve daemon and VMMs at random moments, and look for what is left over.
    Kill(KillArgs),
    /// Hours of VMs that come, go, change and move: nothing may grow.
    Soak(SoakArgs),
}

impl Campaign {
    /// Runs it and reports.
    ///
    /// # Errors
    /// It could not be run. What it finds to be wrong is a report and an exit status.
    pub fn run(self) -> Result<ExitCode> {
        match self {
            Self::Kill(arguments) => kill::run(&arguments),
            Self::Soak(arguments) => soak::run(&arguments),
        }
    }
}
