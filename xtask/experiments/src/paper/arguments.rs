//! The command line of `cargo xtask paper`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use plimsoll_lab::workspace;

/// Which figure, and how.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask paper fig2\n  cargo xtask paper fig2 --rounds 10 --output ./figures\n  cargo xtask paper fig4 --guests 1,2,10 --rounds 5\n  cargo xtask paper fig7 --simulated\n  cargo xtask paper fig8 --json | tail -1 | jq .rows"
)]
pub struct PaperArgs {
    /// Which figure of Waldspurger 2002.
    #[arg(value_enum)]
    pub(super) figure: Figure,
    /// Show what the simulator makes of it, in an instant, instead of running guests. Figure 8 is
    /// always simulated.
    #[arg(long)]
    pub(super) simulated: bool,
    /// Figure 2: measurements of every size. Figure 4: turns of work with sharing and without;
    /// none with 0.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=50))]
    pub(super) rounds: u32,
    /// Figure 4: numbers of guests, in increasing order. Default: 1,2,3,5,10, as in the paper.
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=20))]
    pub(super) guests: Vec<u32>,
    /// Figures 6 and 7: take N times as long, for less haste in sampling.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10))]
    pub(super) stretch: u32,
    /// Where to write what was measured, as CSV and as a drawing. Default: target/paper.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// End with one JSON object in a line.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Figure {
    /// dbench in a VM ballooned to a size, and configured with it.
    Fig2,
    /// Identical VMs that share pages.
    Fig4,
    /// Unlike VMs that share pages.
    Fig5,
    /// What a VM is taken to use, against what it uses.
    Fig6,
    /// The tax on idle memory.
    Fig7,
    /// Five VMs on a host of 1 GB.
    Fig8,
}

impl PaperArgs {
    /// The directory for a figure's files.
    pub(super) fn directory(&self) -> PathBuf {
        self.output.clone().unwrap_or_else(|| workspace::root().join("target/paper"))
    }
}
