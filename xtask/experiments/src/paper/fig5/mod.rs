//! Figure 5: what unlike VMs share (Waldspurger 2002, section 4.4). The paper's are those of three
//! production hosts; ours are fleets that differ in what a pair of their VMs has in common.
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
use crate::guests::debian_disk;

pub(super) use inside::{Plan, measure};
pub(super) use report::Report;

/// The lab's memory, which preflight looks for.
const MEMORY: Bytes = Bytes(lab_memory::FIG5.0);
/// How long all of it may take: five minutes for each of 24 guests.
const LIMIT: Duration = Duration::from_secs(7200);

/// Measures in the lab, and writes the files.
pub(super) fn run(arguments: &PaperArgs) -> Result<Report> {
    let programs = workspace::build()?;
    let share = debian_disk::build(&programs)?;
    let plan = Plan::default();
    let report = Report::new(lab::measured(&programs, MEMORY, Some(&share), &plan.arguments(), LIMIT)?);
    files::write(arguments, "fig5", &report.csv(), &report.svg())?;
    Ok(report)
}
