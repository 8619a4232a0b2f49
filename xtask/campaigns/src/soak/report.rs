//! What a soak found.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result};
use plimsoll_operate::remains::Remains;
use serde::Serialize;

use super::sample::Sample;
use super::verdict::Verdict;

/// What is said of figures that were taken beside other work.
const REMARK: &str = "Counts do not depend on other programs on this machine. What VMMs share and page does, a little: \
    other programs leave them less processor time and memory.";

/// The result. Its fields are an interface: scripts read them.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) minutes: u32,
    pub(super) vms: u32,
    /// How often each operation was done, and `refused`.
    pub(super) operations: BTreeMap<&'static str, u64>,
    /// What went wrong; the first twenty.
    pub(super) wrong: Vec<String>,
    pub(super) verdicts: Vec<Verdict>,
    pub(super) remains: Remains,
    pub(super) samples: Vec<Sample>,
}

impl Report {
    /// Whether nothing grew, nothing is left over and nothing went wrong.
    fn holds(&self) -> bool {
        self.wrong.is_empty() && self.remains.is_empty() && self.verdicts.iter().all(|verdict| verdict.flat)
    }

    /// Prints it, as text and, with `json`, as one line of JSON after that. Fails where something
    /// is wrong.
    #[expect(clippy::print_stdout, reason = "the report is the result")]
    pub(super) fn print(&self, json: bool) -> Result<ExitCode> {
        println!("{}", self.text());
        if json {
            println!("{}", serde_json::to_string(self).context("writing the result")?);
        }
        Ok(if self.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn text(&self) -> String {
        let mut lines: Vec<String> = self.verdicts.iter().map(ToString::to_string).collect();
        lines.push(self.remains.to_string());
        lines.extend(self.wrong.iter().map(|what| format!("WRONG: {what}")));
        let operations: Vec<String> =
            self.operations.iter().map(|(name, count)| format!("{name} {count}")).collect();
        lines.push(format!(
            "{} VMs for {} minutes with seed {}: {}.",
            self.vms,
            self.minutes,
            self.seed,
            operations.join(", ")
        ));
        lines.push(REMARK.to_owned());
        lines.push(if self.holds() { "All of it held." } else { "It did NOT hold." }.to_owned());
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let operations = BTreeMap::from([("start", 3), ("refused", 1)]);
        let (wrong, verdicts, samples) = (Vec::new(), Vec::new(), Vec::new());
        Report {
            seed: 7,
            minutes: 10,
            vms: 8,
            operations,
            wrong,
            verdicts,
            samples,
            remains: Remains::default(),
        }
    }

    #[test]
    fn what_is_left_over_or_went_wrong_fails() {
        assert_eq!(report().print(true).unwrap(), ExitCode::SUCCESS);
        let left = Report { remains: Remains { processes: vec![5], ..Remains::default() }, ..report() };
        assert_eq!(left.print(false).unwrap(), ExitCode::FAILURE);
        let wrong = Report { wrong: vec!["a is off".to_owned()], ..report() };
        assert!(
            wrong.text().contains("WRONG: a is off") && wrong.text().contains("seed 7: refused 1, start 3")
        );
        assert_eq!(wrong.print(false).unwrap(), ExitCode::FAILURE);
    }
}
