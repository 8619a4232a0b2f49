//! The results of a run, and the faults of the emulator in it.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use plimsoll_lab::workspace::{note, step};

/// Results so far. Steps may run side by side.
#[derive(Debug, Default)]
pub(super) struct Tally {
    results: Mutex<Vec<(String, bool, Duration)>>,
    emulator_faults: Mutex<Vec<String>>,
}

impl Tally {
    /// Runs `work` as the step `name`, and says how it went.
    pub(super) fn run(&self, name: &str, work: impl FnOnce() -> Result<()>) {
        step(name);
        let begin = Instant::now();
        let result = work();
        let took = begin.elapsed();
        match &result {
            Ok(()) => note(&format!("{name}: passed in {}", Seconds(took))),
            Err(error) => note(&format!("{name}: FAILED in {}: {error:#}", Seconds(took))),
        }
        push(&self.results, (name.to_owned(), result.is_ok(), took));
    }

    /// Counts a fault of the emulator in the step `name`. Whether it is excused: the run's first
    /// is.
    pub(super) fn excuses(&self, name: &str, signature: &str) -> bool {
        push(&self.emulator_faults, format!("{name}: {signature}")) == 1
    }

    #[expect(clippy::print_stdout, reason = "the summary is the result")]
    pub(super) fn summary(self) -> bool {
        let results = self.results.into_inner().unwrap_or_else(PoisonError::into_inner);
        println!();
        for (name, passed, took) in &results {
            println!(
                "{}  {:>7}  {name}",
                if *passed { "passed" } else { "FAILED" },
                Seconds(*took).to_string()
            );
        }
        let faults = self.emulator_faults.into_inner().unwrap_or_else(PoisonError::into_inner);
        println!("\nemulator faults: {}", faults.len());
        for (index, fault) in faults.iter().enumerate() {
            let verdict = if index == 0 { "excused, and run again" } else { "not excused" };
            println!("  {verdict}: {fault}");
        }
        let passed = results.iter().filter(|(_, passed, _)| *passed).count();
        let failed = results.len() - passed;
        println!("\n{passed} passed, {failed} failed");
        failed == 0
    }
}

/// Appends `item`, and returns the list's new length.
fn push<T>(list: &Mutex<Vec<T>>, item: T) -> usize {
    // A list that only grows is whole after any panic.
    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
    list.push(item);
    list.len()
}

/// A duration to a tenth of a second.
pub(super) struct Seconds(pub(super) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fault_of_the_emulator_is_excused_in_a_run() {
        let tally = Tally::default();
        assert!(tally.excuses("boot", "no processor can have EFLAGS 0x4100a606"));
        assert!(!tally.excuses("greedy", "the lab's own kernel died"));
        assert!(!tally.excuses("boot", "the lab's own kernel died"));
    }
}
