//! How long the daemon takes to answer.

use std::time::Instant;

use anyhow::{Result, ensure};
use plimsoll_operate::Stage;

use crate::bench::report::Figure;

/// Questions of each kind: enough for a hundredth of them to be more than one or two.
const QUESTIONS: usize = 300;

/// Milliseconds to an answer, from the connection to its last byte.
#[derive(Debug, Default)]
pub(super) struct Latencies(Vec<f64>);

/// The three questions that monitors ask most.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// About the host.
    pub(super) host: Latencies,
    /// About all VMs.
    pub(super) all: Latencies,
    /// About one VM.
    pub(super) vm: Latencies,
}

/// Asks each question many times, by turns.
pub(super) fn ask(stage: &Stage, names: &[String]) -> Result<Answers> {
    let mut answers = Answers::default();
    for name in names.iter().cycle().take(QUESTIONS) {
        answers.host.ask(stage, "/v1/host")?;
        answers.all.ask(stage, "/v1/vms")?;
        answers.vm.ask(stage, &format!("/v1/vms/{name}"))?;
    }
    Ok(answers)
}

impl Answers {
    /// The middle and the slowest hundredth of each; `when` they were asked.
    pub(super) fn figures(&self, when: &str) -> Result<Vec<Figure>> {
        let kinds =
            [("GET /v1/host", &self.host), ("GET /v1/vms", &self.all), ("GET /v1/vms/NAME", &self.vm)];
        let mut figures = Vec::new();
        for (question, latencies) in kinds {
            figures.push(Figure::new(format!("{question} {when}"), "ms", &latencies.0)?);
            figures.push(Figure::new(
                format!("{question} {when}, 99th percentile"),
                "ms",
                &[latencies.percentile(99)],
            )?);
        }
        Ok(figures)
    }
}

impl Latencies {
    fn ask(&mut self, stage: &Stage, path: &str) -> Result<()> {
        let asked = Instant::now();
        let answer = stage.ask("GET", path, "")?;
        self.0.push(asked.elapsed().as_secs_f64() * 1000.0);
        ensure!(answer.status == 200, "GET {path}: status {}", answer.status);
        Ok(())
    }

    pub(super) fn median(&self) -> f64 {
        self.percentile(50)
    }

    /// The value that `percent` of all do not exceed; zero where there are none.
    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let latencies = Latencies((1..=300).rev().map(f64::from).collect());
        assert_eq!(
            (latencies.median(), latencies.percentile(99), latencies.percentile(100)),
            (150.0, 297.0, 300.0)
        );
        assert_eq!(Latencies::default().median(), 0.0);
        assert_eq!(Latencies(vec![7.0]).percentile(99), 7.0);
    }
}
