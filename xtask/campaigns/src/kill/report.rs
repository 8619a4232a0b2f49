//! What a campaign ends with.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::tally::Tally;

/// What was done, and what failed.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Points that were done, the failed one included.
    pub(super) points: u64,
    /// The seed of the first point; the others follow it.
    pub(super) seed: u64,
    /// The population.
    pub(super) vms: usize,
    /// How long all of it took.
    pub(super) seconds: f64,
    /// Attacks by name.
    pub(super) attacks: Tally,
    /// What else was done or happened.
    pub(super) counts: Tally,
    /// A line for each point that failed.
    pub failures: Vec<String>,
}

impl Report {
    /// Prints it, as text or as one line of JSON. A campaign with a failure has failed.
    #[expect(clippy::print_stdout, reason = "the report is the result")]
    pub(super) fn print(&self, json: bool) -> Result<ExitCode> {
        if json {
            println!("{}", serde_json::to_string(self).context("writing the report")?);
        } else {
            println!("{}", self.text());
        }
        Ok(if self.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn text(&self) -> String {
        let mut lines: Vec<String> = self.attacks.lines().chain(self.counts.lines()).collect();
        let time = Duration::from_secs_f64(self.seconds).as_secs();
        lines.push(format!(
            "{} points with {} VMs from seed {} in {time} s",
            self.points, self.vms, self.seed
        ));
        lines.extend(self.failures.iter().map(|failure| format!("FAILED: {failure}")));
        if self.failures.is_empty() {
            lines.push("Nothing was lost, left over or over budget.".to_owned());
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_and_fails() {
        let mut attacks = Tally::default();
        attacks.count("daemon-killed");
        let (counts, failures) = (Tally::default(), Vec::new());
        let mut report = Report { points: 3, seed: 7, vms: 12, seconds: 4.5, attacks, counts, failures };
        assert_eq!(report.print(true).unwrap(), ExitCode::SUCCESS);
        report.failures.push("point 3: a page".to_owned());
        assert_eq!(report.print(false).unwrap(), ExitCode::FAILURE);
        let text = report.text();
        for part in ["1  daemon-killed", "3 points with 12 VMs from seed 7", "FAILED: point 3: a page"] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["seed"], &json["attacks"]["daemon-killed"]), (&7.into(), &1.into()));
    }
}
