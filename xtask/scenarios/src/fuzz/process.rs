//! One process of libFuzzer: what it is told, and what it says.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plimsoll_lab::workspace::note;

use super::arguments::FuzzArgs;
use super::outcome::{Crash, Outcome, Progress};
use super::program::VARIABLE;
use super::targets::Target;
use super::{EXECUTIONS, left};

/// Longest input: what is read in one piece is shorter, and a longer one only repeats.
const LONGEST: usize = 4096;
/// Seconds that one input may take. Devices are given 30 s for an answer; only a hang takes longer.
const INPUT_TIMEOUT: u64 = 120;
/// MiB of a process. A target uses a tenth of that.
const MEMORY: u64 = 2048;
/// How often progress is shown.
const NEWS: Duration = Duration::from_secs(10);
/// Last lines of a process that are shown where it fails.
const LAST_LINES: usize = 40;

/// When a target has run for long enough.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit {
    /// Executions of all targets.
    Executions(u64),
    /// Seconds of each.
    Seconds(u64),
}

impl Limit {
    /// What `arguments` say.
    pub(super) fn of(arguments: &FuzzArgs) -> Self {
        match arguments.seconds {
            Some(seconds) => Self::Seconds(seconds),
            None => Self::Executions(arguments.executions.unwrap_or(EXECUTIONS)),
        }
    }

    /// It as libFuzzer is told it for `target`, of `targets` that divide the executions.
    fn argument(self, target: &Target, targets: &[&Target]) -> String {
        match self {
            Self::Executions(all) => {
                let shares: u64 = targets.iter().map(|target| target.share).sum();
                let part = u128::from(all) * u128::from(target.share);
                format!("-runs={}", part.div_ceil(u128::from(shares.max(1))))
            }
            Self::Seconds(seconds) => format!("-max_total_time={seconds}"),
        }
    }
}

/// Runs `target`, one of `targets`, within `limit`, and says every few seconds how far it is.
///
/// # Errors
/// It cannot be started, or ends with an error and no input that caused it.
pub(super) fn run(program: &Path, target: &Target, targets: &[&Target], limit: Limit) -> Result<Outcome> {
    let found = left().join("corpus").join(target.name);
    let crashes = left().join("crashes").join(target.name);
    for directory in [&found, &crashes] {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    let mut command = Command::new(program);
    command.env(VARIABLE, target.name).arg(limit.argument(target, targets));
    command.arg(format!("-artifact_prefix={}/", crashes.display()));
    command.args([format!("-max_len={LONGEST}"), format!("-timeout={INPUT_TIMEOUT}")]);
    command.args([format!("-rss_limit_mb={MEMORY}"), "-print_final_stats=1".to_owned()]);
    // New inputs go to the first.
    command.arg(&found).args(target.inputs());
    let begin = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let stderr = child.stderr.take().context("the process has no standard error")?;
    let (mut progress, mut told) = (Progress::default(), begin);
    let (mut last, mut input) = (VecDeque::new(), None);
    for line in BufReader::new(stderr).split(b'\n') {
        let line = String::from_utf8_lossy(&line.context("reading what libFuzzer says")?).into_owned();
        progress.hear(&line);
        input = written(&line).or(input);
        if told.elapsed() >= NEWS {
            told = Instant::now();
            note(&format!("{}: {progress}", target.name));
        }
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    let status = child.wait().context("waiting for libFuzzer")?;
    let said = || last.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
    let crash = match input {
        Some(input) => Some(Crash { input, said: said() }),
        None => {
            ensure!(status.success(), "{}: libFuzzer ended with {status}:\n{}", target.name, said());
            None
        }
    };
    let outcome = Outcome { target: target.name, progress, took: begin.elapsed(), crash };
    note(&format!("{}: {}", target.name, outcome.sentence()));
    Ok(outcome)
}

/// The input that `line` says was kept because of what it caused.
fn written(line: &str) -> Option<PathBuf> {
    line.split_once("Test unit written to ").map(|(_, path)| PathBuf::from(path.trim()))
}

/// Runs `target` with one input, and shows all that it says.
///
/// # Errors
/// It cannot be started.
pub(super) fn reproduce(program: &Path, target: &Target, input: &Path) -> Result<ExitCode> {
    let mut command = Command::new(program);
    command.env(VARIABLE, target.name).arg(format!("-timeout={INPUT_TIMEOUT}")).arg(input);
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("starting {}", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::super::targets::TARGETS;
    use super::*;

    #[test]
    fn executions_are_divided_and_none_is_lost() {
        let of = |target: &Target, targets: &[&Target]| Limit::Executions(100_000).argument(target, targets);
        let all: Vec<&Target> = TARGETS.iter().collect();
        let part = |text: String| text.strip_prefix("-runs=").unwrap().parse::<u64>().unwrap();
        assert_eq!(all.iter().map(|target| part(of(target, &all))).sum::<u64>(), 100_000);
        assert_eq!(of(all[0], &all[..1]), "-runs=100000");
        assert_eq!(Limit::Seconds(7).argument(all[0], &all), "-max_total_time=7");
    }

    #[test]
    fn the_input_of_a_crash_is_found_in_what_libfuzzer_says() {
        let line = "artifact_prefix='/a/'; Test unit written to /a/crash-0f";
        assert_eq!(written(line), Some(PathBuf::from("/a/crash-0f")));
        assert_eq!(written("Base64: AA=="), None);
    }
}
