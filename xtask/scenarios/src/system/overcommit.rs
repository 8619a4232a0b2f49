//! The demo's assertion.

use anyhow::{Result, ensure};
use plimsoll_demo::drive::{self, Plan};

use crate::guests::Guests;

pub(super) fn run(guests: Guests) -> Result<()> {
    let plan = Plan { table: false, ..Plan::new(guests == Guests::Models) };
    let (report, _stage) = drive::run(&plan, false)?;
    ensure!(report.ok, "it did not hold:\n{}", report.text());
    ensure!(report.size_bytes.0 * 10 >= report.budget_bytes.0 * 16, "the guests were hardly overcommitted");
    Ok(())
}
