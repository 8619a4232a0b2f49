//! Figure 2: dbench with 40 clients in a VM that is configured with a size, and in one of 256 MB that is ballooned down to it
//! (Waldspurger 2002, section 3.2).
//!
//! [`inside`] is the experiment; here is what is made of its measurements.

mod inside;
mod report;

use std::time::Duration;

use anyhow::Result;
use plimsoll_units::Bytes;
use preflight::lab_memory;

use super::{PaperArgs, files, lab};
use crate::guest;
use crate::kernel::Version;
use crate::workspace;

pub(super) use inside::{Plan, measure};
pub(super) use report::Report;

/// The sizes that are measured in both ways, in MB.
const SIZES: [u64; 4] = [128, 160, 192, 224];
/// The size from which is ballooned, in MB.
const FULL: u64 = 256;
/// The paper's.
const CLIENTS: u32 = 40;
/// What the clients of a run move together, in MB: they write all their files, and work with them for a while. Half a minute in
/// emulation; nine longer runs a round would take too long.
const MEGABYTES: u32 = 250;
/// The clients' files are a fifth of their recorded size: 170 MB together, so that what a guest has decides how much of them it
/// caches. At full size no guest here could write them all in the time of a run.
const DIVISOR: u64 = 5;
/// The lab's memory, which preflight looks for.
const MEMORY: Bytes = Bytes(lab_memory::FIG2.0);
/// How long a round may take. Five minutes are usual on a machine that does nothing else.
const ROUND: Duration = Duration::from_secs(1800);

/// Measures in the lab, and writes the files.
pub(super) fn run(arguments: &PaperArgs) -> Result<Report> {
    let programs = workspace::build()?;
    let share = guest::dbench::build(Version::V6_12, &programs, DIVISOR)?;
    let plan = Plan { rounds: arguments.rounds, clients: CLIENTS, megabytes: MEGABYTES };
    let limit = ROUND * (arguments.rounds + 1);
    let report = Report::new(plan, lab::measured(&programs, MEMORY, Some(&share), &plan.arguments(), limit)?);
    files::write(arguments, "fig2", &report.csv(), &report.svg())?;
    Ok(report)
}
