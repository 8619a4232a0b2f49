//! Figure 7: two VMs of 256 MB with equal shares and 360 MB for them, one idle and one busy, at a
//! tax of 0 and of 0.75.

use std::time::Duration;

use anyhow::Result;
use plimsoll_policy::Tax;
use plimsoll_sim::Course;
use plimsoll_units::Bytes;

use super::super::exact;
use super::super::table::{Row, mb, pages_mb};
use super::report::{Report, shipped};

const ESTIMATED: &str =
    "the exact answer for a busy VM that uses 200 MB; estimates lie a little above the truth";
const SUM: &str = "the paper's two VMs end with 344 MB of the 360";
const SIZE: &str = "a VM that used all of its 256 MB would get them, and leave 104";

pub(super) fn report() -> Result<Report> {
    let (_, course) = shipped("figure7.toml")?;
    Ok(Report { figure: "figure 7", rows: rows(&course) })
}

/// The VMs' memory, from some minutes after each change of the tax until the next.
fn rows(course: &Course) -> Vec<Row> {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    let [idle, busy] = [0, 1].map(|vm| {
        move |from: u64, to: u64| {
            let mean = course.mean(minutes(from), minutes(to), |f| f.vms[vm].allocated);
            mb(mean.unwrap_or_default())
        }
    });
    // What policy gives two VMs of which one uses 10 MB and the other `busy`.
    let alone = |tax, busy| exact::fig7(tax, [Bytes::mib(10), Bytes::mib(busy)]);
    let (plain, taxed, full) = (alone(Tax::NONE, 200), alone(Tax::DEFAULT, 200), alone(Tax::DEFAULT, 256));
    let row = |what, paper, ours, exact, remark| Row {
        what,
        unit: "MB",
        paper,
        ours,
        exact: Some(pages_mb(exact)),
        remark,
    };
    vec![
        row("idle VM, tax 0", Some(179.0), idle(10, 30), plain[0], ""),
        row("busy VM, tax 0", Some(179.0), busy(10, 30), plain[1], ""),
        row("idle VM, tax 0.75", Some(101.0), idle(40, 60), taxed[0], ESTIMATED),
        row("busy VM, tax 0.75", Some(243.0), busy(40, 60), taxed[1], SUM),
        row("idle VM beside one that uses 256 MB", None, idle(40, 60), full[0], SIZE),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figure_7_rests_where_the_paper_shows_it() {
        let report = report().unwrap();
        let ours: Vec<f64> = report.rows.iter().map(|r| r.ours).collect();
        for (ours, low, high) in [
            (ours[0], 177.0, 183.0),
            (ours[1], 177.0, 183.0),
            (ours[2], 98.0, 114.0),
            (ours[3], 240.0, 256.0),
        ] {
            assert!((low..=high).contains(&ours), "{ours} is not from {low} to {high}: {:?}", report.rows);
        }
        for row in &report.rows[..4] {
            assert!((row.ours - row.exact.unwrap()).abs() < 7.0, "{row:?}");
        }
    }
}
