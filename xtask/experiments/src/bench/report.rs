//! What a benchmark prints: figures by name, judged by goals.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;

use super::goal::Goal;
use crate::stats::Spread;

/// What a benchmark found: figures by name, judged by goals.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// How often everything was measured. Each figure is the median of that many runs, with the
    /// smallest and the largest.
    pub(crate) runs: usize,
    pub(crate) figures: Vec<Figure>,
    pub(crate) goals: Vec<Goal>,
    /// What this machine did not let us do, and what else the reader must know of this run.
    pub(crate) remarks: Vec<String>,
    pub(crate) not_shown: &'static str,
}

/// One figure, of all runs.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    name: String,
    unit: &'static str,
    #[serde(flatten)]
    pub(crate) spread: Spread,
}

impl Figure {
    /// The spread of what `runs` measured.
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, runs: &[f64]) -> Result<Self> {
        let name = name.into();
        let spread =
            Spread::of(runs.iter().copied(), 3).with_context(|| format!("{name} was not measured"))?;
        Ok(Self { name, unit, spread })
    }
}

impl Report {
    /// Prints it, as text or as one line of JSON. Fails where a goal was missed.
    #[expect(clippy::print_stdout, reason = "the report is the result")]
    pub(crate) fn print(&self, json: bool) -> Result<ExitCode> {
        if json {
            println!("{}", serde_json::to_string(self).context("writing the figures")?);
        } else {
            println!("{}", self.text());
        }
        Ok(if self.goals.iter().all(|goal| goal.met) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn text(&self) -> String {
        let width = self.figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
        let mut lines = vec![format!("{:width$}  {:>10}  {:>21}", "", "MEDIAN", "SPREAD")];
        lines.extend(self.figures.iter().map(|Figure { name, unit, spread }| {
            let ends = format!("{:.2} to {:.2}", spread.min, spread.max);
            format!("{name:width$}  {:>10.2}  {ends:>21}  {unit}", spread.median)
        }));
        lines.extend(self.goals.iter().map(Goal::to_string));
        lines.extend(self.remarks.iter().cloned());
        lines.push(format!("What this does not show: {}", self.not_shown));
        lines.join("\n")
    }
}

/// The ratio of two measurements of each run.
pub(crate) fn ratios(above: &[f64], below: &[f64]) -> Vec<f64> {
    above.iter().zip(below).map(|(above, below)| above / below).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_tells_every_figure_goal_and_remark() {
        let report = Report {
            runs: 3,
            figures: vec![Figure::new("a fault", "us", &[3.0, 1.0, 2.0]).unwrap()],
            goals: vec![Goal::at_most("ratio", 1.5, 1.3)],
            remarks: vec!["No swapon here.".to_owned()],
            not_shown: "everything else",
        };
        let text = report.text();
        for part in ["a fault", "2.00", "1.00 to 3.00", "us", "MISSED: ratio", "No swapon", "everything else"]
        {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["figures"][0]["median"], &json["goals"][0]["met"]), (&2.0.into(), &false.into()));
        assert_eq!(report.print(true).unwrap(), ExitCode::FAILURE);
    }

    #[test]
    fn a_figure_without_measurements_is_an_error() {
        assert!(Figure::new("nothing", "us", &[]).is_err());
        assert_eq!(ratios(&[4.0, 9.0], &[2.0, 3.0]), [2.0, 3.0]);
    }
}
