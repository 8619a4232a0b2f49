//! The paper's figures and ours, side by side.
//!
//! Figures 2, 4, 5, 6 and 7 are the paper's experiments with real guests in the [`lab`]; figures 7
//! and 8 also run in the simulator of `plimsoll plan`, in [`simulated`].

mod arguments;
mod exact;
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

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Subcommand;
use serde::Serialize;

use self::arguments::Figure;

pub use self::arguments::PaperArgs;

/// The part of a figure that runs in the lab.
#[derive(Debug, Subcommand)]
pub enum Inside {
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
    pub fn run(&self) -> Result<()> {
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
pub fn run(arguments: &PaperArgs) -> Result<ExitCode> {
    let simulated = match arguments.figure {
        Figure::Fig7 if arguments.simulated => Some(simulated::Figure::Fig7),
        Figure::Fig8 => Some(simulated::Figure::Fig8),
        _ => None,
    };
    if let Some(figure) = simulated {
        let report = simulated::report(figure)?;
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
