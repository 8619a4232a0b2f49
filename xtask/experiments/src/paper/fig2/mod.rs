//! Figure 2: dbench with 40 clients in a VM that is configured with a size, and in one of 256 MB
//! that is ballooned down to it (Waldspurger 2002, section 3.2).
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

/// What the clients of a run move together, in MB: they write all their files, and work with them
/// for a while. Half a minute in emulation; nine longer runs a round would take too long.
const MEGABYTES: u32 = 250;
/// The lab's memory, which preflight looks for.
const MEMORY: Bytes = Bytes(lab_memory::FIG2.0);
/// How long a round may take. Five minutes are usual on a machine that does nothing else.
const ROUND: Duration = Duration::from_secs(1800);

/// Measures in the lab, and writes the files.
pub(super) fn run(arguments: &PaperArgs) -> Result<Report> {
    let programs = workspace::build()?;
    let share = dbench_disk::build(Version::V6_12, &programs)?;
    let plan = Plan { rounds: arguments.rounds, load: Load { clients: CLIENTS, megabytes: MEGABYTES } };
    let limit = ROUND * (arguments.rounds + 1);
    let report = Report::new(plan, lab::measured(&programs, MEMORY, Some(&share), &plan.arguments(), limit)?);
    files::write(arguments, "fig2", &report.csv(), &report.svg())?;
    Ok(report)
}
