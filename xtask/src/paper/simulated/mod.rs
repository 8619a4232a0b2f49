//! The paper's experiments as the simulator of `plimsoll plan` sees them: the scenarios are those that `plimsoll plan` ships.

mod fig7;
mod fig8;

use anyhow::{Context, Result, anyhow};
use plimsoll_sim::{Course, Scenario, simulate};
use plimsoll_units::{Bytes, Pages};
use serde::Serialize;

use crate::workspace;

/// A figure that can be simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    /// The tax on idle memory.
    Fig7,
    /// Five VMs on a host of 1 GB.
    Fig8,
}

/// A figure of the paper and ours. MB stands for MiB, as in the paper.
#[derive(Debug, Serialize)]
struct Row {
    /// What is compared.
    what: &'static str,
    unit: &'static str,
    /// `None`: the paper gives no number.
    paper: Option<f64>,
    /// By the simulator.
    ours: f64,
    /// By policy alone, where that is an answer: for the demand as it is, not as it is estimated.
    exact: Option<f64>,
    /// Why they differ, where they do.
    remark: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Report {
    figure: &'static str,
    rows: Vec<Row>,
}

impl Report {
    /// Runs a figure's scenario.
    pub(super) fn of(figure: Figure) -> Result<Self> {
        match figure {
            Figure::Fig7 => fig7::report(),
            Figure::Fig8 => fig8::report(),
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let number = |n: Option<f64>| n.map_or_else(|| "-".to_owned(), |n| format!("{n:.0}"));
        let width = self.rows.iter().map(|r| r.what.chars().count()).max().unwrap_or(0);
        let width = width.max(self.figure.chars().count());
        let mut lines =
            vec![format!("{:width$}  {:>6}  {:>6}  {:>6}", self.figure, "PAPER", "OURS", "EXACT")];
        for row in &self.rows {
            let (paper, ours, exact) = (number(row.paper), number(Some(row.ours)), number(row.exact));
            let line = format!(
                "{:width$}  {paper:>6}  {ours:>6}  {exact:>6}  {:3} {}",
                row.what, row.unit, row.remark
            );
            lines.push(line.trim_end().to_owned());
        }
        lines.push("OURS is what the simulator shows, EXACT what policy gives for the true demand; scenarios/README.md says more.".to_owned());
        lines.join("\n")
    }
}

/// The shipped scenario `name` and its course.
fn shipped(name: &str) -> Result<(Scenario, Course)> {
    let path = workspace::root().join("scenarios").join(name);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let none = |_: &str| Err("a shipped scenario names no files".to_owned());
    let scenario = Scenario::from_toml(&text, &none).map_err(|e| anyhow!("{}: {e}", path.display()))?;
    let course = simulate(&scenario);
    Ok((scenario, course))
}

fn mb(bytes: Bytes) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "shown in MB")]
    let bytes = bytes.0 as f64;
    bytes / f64::from(1 << 20)
}

fn pages_mb(pages: Pages) -> f64 {
    mb(pages.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_shows_both_sides_and_what_the_paper_leaves_out() {
        let row =
            |paper, exact| Row { what: "idle VM", unit: "MB", paper, ours: 107.4, exact, remark: "why" };
        let report =
            Report { figure: "figure 7", rows: vec![row(Some(101.0), Some(108.6)), row(None, None)] };
        let text = report.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "figure 7   PAPER    OURS   EXACT");
        assert_eq!(lines[1], "idle VM      101     107     109  MB  why");
        assert_eq!(lines[2], "idle VM        -     107       -  MB  why");
    }
}
