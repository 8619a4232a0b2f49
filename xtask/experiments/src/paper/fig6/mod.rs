//! Figure 6: what a VM is taken to use while its toucher steps through known amounts (Waldspurger
//! 2002, section 5.3).
//!
//! [`inside`] is the experiment; here is what is made of its measurements.

mod inside;
mod report;

use std::time::Duration;

use anyhow::Result;
use plimsoll_lab::workspace;
use plimsoll_units::Bytes;
use preflight::lab_memory;

use super::arguments::PaperArgs;
use super::{files, lab};

use self::inside::STEPS;

pub(super) use inside::{Plan, measure};
pub(super) use report::Report;

/// The paper's 40 minutes have 3.6 for a step, and sampling periods of 30 s of the VM's time. Ours
/// are scaled down to a tenth; as the toucher rests half its time, a step has about as many periods
/// as in the paper.
const STEP: u32 = 40;
const PERIOD: u32 = 3;
/// The lab's memory, which preflight looks for.
const MEMORY: Bytes = Bytes(lab_memory::FIG6.0);
/// How long everything around the steps may take.
const AROUND: Duration = Duration::from_secs(900);

/// Measures in the lab, and writes the files.
pub(super) fn run(arguments: &PaperArgs) -> Result<Report> {
    let programs = workspace::build()?;
    let plan = Plan { step: STEP * arguments.stretch, period: PERIOD * arguments.stretch };
    let limit = AROUND + Duration::from_secs(u64::from(plan.step)) * 2 * u32::try_from(STEPS.len())?;
    let measured = lab::measured(&programs, MEMORY, None, &plan.arguments(), limit)?;
    let report = Report::new(plan, measured);
    files::write(arguments, "fig6", &report.csv(), &report.svg())?;
    Ok(report)
}
