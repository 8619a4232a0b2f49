//! The paper's figures and ours, side by side.
//!
//! Figures 2, 4, 5, 6 and 7 are the paper's experiments with real guests in the [`lab`]; figures 7 and 8 also run in the
//! simulator of `plimsoll plan`, in [`simulated`].

mod fig2;
mod fig4;
mod fig5;
mod fig6;
mod fig7;
mod files;
mod fleet;
mod lab;
mod simulated;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Args, Subcommand, ValueEnum};
use plimsoll_policy::{Client, Tax, entitlements};
use plimsoll_units::{Bytes, Pages};
use serde::Serialize;

use crate::workspace;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask paper fig2\n  cargo xtask paper fig2 --rounds 10 --output ./figures\n  cargo xtask paper fig4 --guests 1,2,10 --rounds 5\n  cargo xtask paper fig7 --simulated\n  cargo xtask paper fig8 --json | tail -1 | jq .rows"
)]
pub(crate) struct PaperArgs {
    /// Which figure of Waldspurger 2002.
    #[arg(value_enum)]
    figure: Figure,
    /// Show what the simulator makes of it, in an instant, instead of running guests. Figure 8 is always simulated.
    #[arg(long)]
    simulated: bool,
    /// Figure 2: measure every size so many times. Figure 4: so many turns of work with sharing and without; none with 0.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=50))]
    rounds: u32,
    /// Figure 4: with so many guests, in increasing order. Default: 1,2,3,5,10, as in the paper.
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=20))]
    guests: Vec<u32>,
    /// Figures 6 and 7: take N times as long, for less haste in sampling.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10))]
    stretch: u32,
    /// Where to write what was measured, as CSV and as a drawing. Default: target/paper.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// End with one JSON object in a line.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Figure {
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

/// The part of a figure that runs in the lab.
#[derive(Debug, Subcommand)]
pub(crate) enum Inside {
    /// Measure ballooned and configured VMs.
    Fig2(fig2::Plan),
    /// Measure identical VMs that share pages.
    Fig4(fig4::Plan),
    /// Measure unlike VMs that share pages.
    Fig5(fig5::Plan),
    /// Measure what a VM is taken to use.
    Fig6(fig6::Plan),
    /// Measure what the tax on idle memory does.
    Fig7(fig7::Plan),
}

impl Inside {
    /// Measures, and prints what came out as one line of JSON.
    pub(crate) fn run(&self) -> Result<()> {
        match self {
            Self::Fig2(plan) => fig2::measure(plan),
            Self::Fig4(plan) => fig4::measure(plan),
            Self::Fig5(plan) => fig5::measure(plan),
            Self::Fig6(plan) => fig6::measure(plan),
            Self::Fig7(plan) => fig7::measure(plan),
        }
    }
}

/// Runs a figure's experiment and prints both sides.
pub(crate) fn run(arguments: &PaperArgs) -> Result<ExitCode> {
    let simulated = match arguments.figure {
        Figure::Fig7 if arguments.simulated => Some(simulated::Figure::Fig7),
        Figure::Fig8 => Some(simulated::Figure::Fig8),
        _ => None,
    };
    if let Some(figure) = simulated {
        let report = simulated::Report::of(figure)?;
        return show(arguments, &report.text(), &report);
    }
    ensure!(!arguments.simulated, "only figures 7 and 8 can be simulated: leave --simulated out");
    match arguments.figure {
        Figure::Fig2 => {
            ensure!(arguments.rounds > 0, "figure 2 needs a round at least");
            let report = fig2::run(arguments)?;
            show(arguments, &report.text(), &report)
        }
        Figure::Fig4 => {
            let report = fig4::run(arguments)?;
            show(arguments, &report.text(), &report)
        }
        Figure::Fig5 => {
            let report = fig5::run(arguments)?;
            show(arguments, &report.text(), &report)
        }
        Figure::Fig6 => {
            let report = fig6::run(arguments)?;
            show(arguments, &report.text(), &report)
        }
        Figure::Fig7 | Figure::Fig8 => {
            let report = fig7::run(arguments)?;
            show(arguments, &report.text(), &report)
        }
    }
}

#[expect(clippy::print_stdout, reason = "the report is the result")]
fn show(arguments: &PaperArgs, text: &str, report: &impl Serialize) -> Result<ExitCode> {
    println!("{text}");
    if arguments.json {
        println!("{}", serde_json::to_string(report)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// What policy gives the two VMs of figure 7, an idle and a busy one of 256 MB with 360 MB for both, that use `active`.
fn exact_fig7(tax: Tax, active: [Bytes; 2]) -> Vec<Pages> {
    let mib = |n| Pages::floor(Bytes::mib(n));
    let client = |active| Client {
        reservation: Pages::ZERO,
        limit: mib(256),
        shares: 1,
        active: Pages::floor(active),
    };
    entitlements(mib(360), tax, &active.map(client))
}

impl PaperArgs {
    /// The directory for a figure's files.
    fn directory(&self) -> PathBuf {
        self.output.clone().unwrap_or_else(|| workspace::root().join("target/paper"))
    }
}
