//! What came of running a target.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

/// How far a target is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Inputs that were run.
    pub(super) executions: u64,
    /// Edges of the program that were reached.
    pub(super) edges: u64,
    /// Inputs that reach something that none before them did.
    pub(super) corpus: u64,
}

impl Progress {
    /// Takes up what a line of libFuzzer's says of it.
    pub(super) fn hear(&mut self, line: &str) {
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = count.trim().parse().unwrap_or(self.executions);
            return;
        }
        let Some((count, rest)) =
            line.strip_prefix('#').and_then(|line| line.split_once(char::is_whitespace))
        else {
            return;
        };
        self.executions = count.parse().unwrap_or(self.executions);
        let mut words = rest.split_whitespace();
        while let Some(word) = words.next() {
            match word {
                "cov:" => self.edges = number(words.next()).unwrap_or(self.edges),
                "corp:" => self.corpus = number(words.next()).unwrap_or(self.corpus),
                _ => {}
            }
        }
    }
}

/// The number before a slash.
fn number(word: Option<&str>) -> Option<u64> {
    word?.split('/').next()?.parse().ok()
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { executions, edges, corpus } = self;
        write!(f, "{executions} executions, {edges} edges, {corpus} inputs in the corpus")
    }
}

/// Something that broke.
#[derive(Clone, Debug)]
pub(super) struct Crash {
    /// The input that did it.
    pub(super) input: PathBuf,
    /// The last lines of the process.
    pub(super) said: String,
}

/// What came of one target.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Its name.
    pub(super) target: &'static str,
    /// How far it came.
    pub(super) progress: Progress,
    /// How long it ran.
    pub(super) took: Duration,
    /// `None`: nothing was found.
    pub(super) crash: Option<Crash>,
}

impl Outcome {
    /// It in one line.
    pub(super) fn sentence(&self) -> String {
        let found = if self.crash.is_some() { ", A CRASH" } else { "" };
        format!("{} in {:.1} s{found}", self.progress, self.took.as_secs_f64())
    }

    /// What was found, and how to see it again; `None`: nothing was found.
    pub(super) fn complaint(&self) -> Option<String> {
        let crash = self.crash.as_ref()?;
        Some(format!(
            "{}: an input breaks a rule, kept as {}\n{}\nto see it again: {}",
            self.target,
            crash.input.display(),
            crash.said.trim(),
            self.again(crash)
        ))
    }

    fn again(&self, crash: &Crash) -> String {
        format!("cargo xtask fuzz {} --input {}", self.target, crash.input.display())
    }

    fn json(&self) -> Value {
        let Progress { executions, edges, corpus } = self.progress;
        let crashes = self.crash.iter();
        let crashes = crashes.map(|crash| json!({ "input": crash.input, "reproduce": self.again(crash) }));
        json!({
            "target": self.target,
            "executions": executions,
            "edges": edges,
            "corpus": corpus,
            "seconds": (self.took.as_secs_f64() * 10.0).round() / 10.0,
            "crashes": crashes.collect::<Vec<_>>(),
        })
    }
}

/// All outcomes as one object.
pub(super) fn json(outcomes: &[Outcome]) -> Value {
    let executions: u64 = outcomes.iter().map(|outcome| outcome.progress.executions).sum();
    let crashes = outcomes.iter().filter(|outcome| outcome.crash.is_some()).count();
    let targets: Vec<Value> = outcomes.iter().map(Outcome::json).collect();
    json!({ "executions": executions, "crashes": crashes, "targets": targets })
}

/// All outcomes, a line each, with the sum of executions.
pub(super) fn table(outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "{:<15} {:>12} {:>8} {:>8} {:>9} {:>8}\n",
        "target", "executions", "edges", "corpus", "time", "crashes"
    );
    for outcome in outcomes {
        let Progress { executions, edges, corpus } = outcome.progress;
        let took = format!("{:.1} s", outcome.took.as_secs_f64());
        let crashes = usize::from(outcome.crash.is_some());
        text += &format!(
            "{:<15} {executions:>12} {edges:>8} {corpus:>8} {took:>9} {crashes:>8}\n",
            outcome.target
        );
    }
    let executions: u64 = outcomes.iter().map(|outcome| outcome.progress.executions).sum();
    text + &format!("{:<15} {executions:>12}\n", "all")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> Progress {
        let mut progress = Progress::default();
        lines.iter().for_each(|line| progress.hear(line));
        progress
    }

    #[test]
    fn progress_is_what_libfuzzer_said_last() {
        let lines = [
            "INFO: Seed: 3404",
            "#2\tINITED cov: 10 ft: 11 corp: 1/1b exec/s: 0 rss: 40Mb",
            "#4096\tNEW    cov: 123 ft: 456 corp: 7/89b lim: 4 exec/s: 0 rss: 41Mb L: 3/9 MS: 1 ChangeBit-",
            "#8192\tpulse  cov: 123 ft: 456 corp: 7/89b lim: 8 exec/s: 4096 rss: 41Mb",
        ];
        assert_eq!(heard(&lines), Progress { executions: 8192, edges: 123, corpus: 7 });
        let ended = heard(&[lines[3], "stat::number_of_executed_units: 9000"]);
        assert_eq!(ended.executions, 9000);
        assert_eq!(heard(&["# of nothing", "==12== ERROR: libFuzzer: deadly signal"]), Progress::default());
    }

    #[test]
    fn a_crash_is_told_with_its_input_and_the_command_that_shows_it_again() {
        let crash = Crash { input: "/t/crash-1".into(), said: "panicked at here\n".to_owned() };
        let outcome =
            |crash| Outcome { target: "core", progress: heard(&["#7 cov: 3"]), took: Duration::ZERO, crash };
        let [good, bad] = [outcome(None), outcome(Some(crash))];
        assert_eq!(good.complaint(), None);
        let text = bad.complaint().unwrap();
        assert!(
            text.contains("panicked at here") && text.ends_with("cargo xtask fuzz core --input /t/crash-1")
        );
        let json = json(&[good, bad]);
        assert_eq!((&json["executions"], &json["crashes"]), (&14.into(), &1.into()));
        assert_eq!(json["targets"][1]["crashes"][0]["input"], "/t/crash-1");
    }
}
