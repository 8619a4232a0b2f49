//! The paper's numbers and ours in one table.

use plimsoll_units::{Bytes, Pages};
use serde::Serialize;

/// A figure of the paper and ours. MB stands for MiB, as in the paper.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// What is compared.
    pub(super) what: &'static str,
    pub(super) unit: &'static str,
    /// `None`: the paper gives no number.
    pub(super) paper: Option<f64>,
    /// What Plimsoll shows, with guests or in the simulator.
    pub(super) ours: f64,
    /// By policy alone, where that is an answer: for the demand as it is, not as it is estimated.
    pub(super) exact: Option<f64>,
    /// Why they differ, where they do.
    pub(super) remark: &'static str,
}

/// The table, for people.
pub(super) fn text(figure: &str, rows: &[Row]) -> String {
    let number = |n: Option<f64>| n.map_or_else(|| "-".to_owned(), |n| format!("{n:.0}"));
    let width = rows.iter().map(|r| r.what.chars().count()).max().unwrap_or(0);
    let width = width.max(figure.chars().count());
    let mut lines = vec![format!("{figure:width$}  {:>6}  {:>6}  {:>6}", "PAPER", "OURS", "EXACT")];
    for row in rows {
        let (paper, ours, exact) = (number(row.paper), number(Some(row.ours)), number(row.exact));
        let line =
            format!("{:width$}  {paper:>6}  {ours:>6}  {exact:>6}  {:3} {}", row.what, row.unit, row.remark);
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

/// In MB, which stands for MiB as in the paper.
pub(super) fn mb(bytes: Bytes) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "shown in MB")]
    let bytes = bytes.0 as f64;
    bytes / f64::from(1 << 20)
}

/// The same of pages.
pub(super) fn pages_mb(pages: Pages) -> f64 {
    mb(pages.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_both_sides_and_what_the_paper_leaves_out() {
        let row =
            |paper, exact| Row { what: "idle VM", unit: "MB", paper, ours: 107.4, exact, remark: "why" };
        let text = text("figure 7", &[row(Some(101.0), Some(108.6)), row(None, None)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "figure 7   PAPER    OURS   EXACT");
        assert_eq!(lines[1], "idle VM      101     107     109  MB  why");
        assert_eq!(lines[2], "idle VM        -     107       -  MB  why");
    }
}
