//! `plimsoll plan`: what policy would do, on paper. Only `fit` without `--host` asks a daemon, and
//! changes nothing there.

mod chart;
mod csv;
mod facts;
mod fit;
mod json;
mod report;
mod run;
mod scenario_file;
mod series;
mod solve;
mod svg;

use anyhow::{Result, anyhow};

use crate::context::Context;

#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  plimsoll plan figure7\n  plimsoll plan host.toml --csv host.csv --svg host.svg\n  \
                  plimsoll plan fit web.toml\n  plimsoll plan solve host.json\n  plimsoll plan run --help"
)]
pub(crate) struct Plan {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    run: Option<run::Run>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Simulate a host and its VMs over time, as a scenario describes them
    Run(run::Run),
    /// Compute how many more VMs of a definition the host can take, and at which risk
    Fit(fit::Fit),
    /// Divide a host's memory among VMs and resource pools
    Solve(solve::Solve),
}

impl Plan {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        match (&self.what, &self.run) {
            (Some(What::Run(run)), _) | (None, Some(run)) => run.run(&context.output),
            (Some(What::Fit(fit)), _) => fit.run(context),
            (Some(What::Solve(solve)), _) => solve.run(&context.output),
            (None, None) => Err(anyhow!("name a scenario or a subcommand: see plimsoll plan --help")),
        }
    }
}
