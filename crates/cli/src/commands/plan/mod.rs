//! `plimsoll plan`: what policy would do, on paper. It asks no daemon.

mod json;
mod solve;

use anyhow::Result;

use crate::output::Output;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  plimsoll plan solve host.json\n  plimsoll plan solve --help")]
pub(crate) struct Plan {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Divide a host's memory among VMs and resource pools
    Solve(solve::Solve),
}

impl Plan {
    pub(super) fn run(&self, output: &Output) -> Result<()> {
        match &self.what {
            What::Solve(solve) => solve.run(output),
        }
    }
}
