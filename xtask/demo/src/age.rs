//! How long ago this process started. A program that becomes another one stays the same process:
//! the age of `xtask` includes what cargo built before.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Clock ticks a second in /proc, on every Linux that Rust's programs run on.
const TICKS: f64 = 100.0;

/// The age of this process.
pub(crate) fn of_this_process() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").context("reading /proc/self/stat")?;
    let uptime = fs::read_to_string("/proc/uptime").context("reading /proc/uptime")?;
    age(&stat, &uptime).context("/proc/self/stat and /proc/uptime do not say when this process started")
}

fn age(stat: &str, uptime: &str) -> Option<Duration> {
    // The second field is the program's name, in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let started: f64 = fields.split(' ').nth(19)?.parse().ok()?;
    let now: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64((now - started / TICKS).max(0.0)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_the_uptime_less_that_at_the_start() {
        let stat =
            "6088 (a) b) S 1 6088 8755 0 -1 4194560 5120 0 0 0 40 12 0 0 20 0 3 0 24512 26476544 24312";
        assert_eq!(age(stat, "300.12 500.00\n"), Some(Duration::from_millis(55_000)));
        assert_eq!(age("", "300.12 500.00"), None);
    }

    #[test]
    fn this_process_is_younger_than_a_day() {
        assert!(of_this_process().unwrap() < Duration::from_secs(86_400));
    }
}
