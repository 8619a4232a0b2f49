//! Figure 4: 1, 2, 3, 5 and 10 identical VMs under load that share pages with each other
//! (Waldspurger 2002, section 4.4).
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

/// Numbers of VMs, the paper's.
pub(super) const GUESTS: [u32; 5] = [1, 2, 3, 5, 10];
/// Units of work that all guests of a fleet do together in a turn: some twenty seconds in
/// emulation.
const UNITS: u32 = 360;
/// The lab's memory, which preflight looks for.
const MEMORY: Bytes = Bytes(lab_memory::FIG4.0);
/// How long a guest may take until it is measured, and a turn of work.
const START: Duration = Duration::from_secs(240);
const TURN: Duration = Duration::from_secs(120);

/// Measures in the lab, and writes the files.
pub(super) fn run(arguments: &PaperArgs) -> Result<Report> {
    let programs = workspace::build()?;
    let share = debian_disk::build(&programs)?;
    let guests = if arguments.guests.is_empty() { GUESTS.to_vec() } else { arguments.guests.clone() };
    let plan = Plan { guests, rounds: arguments.rounds, units: UNITS };
    let most = plan.guests.iter().max().copied().unwrap_or(1);
    let sizes = u32::try_from(plan.guests.len())?;
    let limit = START * (2 * most + 2 * sizes) + TURN * 2 * plan.rounds * sizes;
    let report =
        Report::new(plan.clone(), lab::measured(&programs, MEMORY, Some(&share), &plan.arguments(), limit)?);
    files::write(arguments, "fig4", &report.csv(), &report.svg())?;
    Ok(report)
}
