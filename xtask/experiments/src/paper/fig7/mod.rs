//! Figure 7: an idle and a busy VM of 256 MB with equal shares and 360 MB for both, at a tax of 0
//! and of 0.75 (Waldspurger 2002, section 5.4).
//!
//! [`inside`] is the experiment; here is what is made of its measurements.

mod inside;
mod report;

use std::time::Duration;

use anyhow::Result;
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace;
use plimsoll_units::Bytes;
use preflight::lab_memory;

use super::arguments::PaperArgs;
use super::{files, lab};
use crate::guests::dbench::{CLIENTS, Load};
use crate::guests::dbench_disk;

pub(super) use inside::{Plan, measure};
pub(super) use report::Report;

/// A tenth of the paper's time, as in figure 6: its phases have half an hour.
const PHASE: u32 = 180;
const PERIOD: u32 = 3;
/// The load of figure 2, of which 256 MB cache more than 179.
const MEGABYTES: u32 = 100;
/// The lab's memory, which preflight looks for.
const MEMORY: Bytes = Bytes(lab_memory::FIG7.0);
/// How long everything around the phases may take.
const AROUND: Duration = Duration::from_secs(1200);

/// Measures in the lab, and writes the files.
pub(super) fn run(arguments: &PaperArgs) -> Result<Report> {
    let programs = workspace::build()?;
    let share = dbench_disk::build(Version::V6_12, &programs)?;
    let plan = Plan {
        phase: PHASE * arguments.stretch,
        period: PERIOD * arguments.stretch,
        load: Load { clients: CLIENTS, megabytes: MEGABYTES },
    };
    let limit = AROUND + Duration::from_secs(u64::from(plan.phase)) * 6;
    let report = Report::new(plan, lab::measured(&programs, MEMORY, Some(&share), &plan.arguments(), limit)?);
    files::write(arguments, "fig7", &report.csv(), &report.svg())?;
    Ok(report)
}
