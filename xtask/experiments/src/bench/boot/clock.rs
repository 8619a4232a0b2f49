//! Times since the machine's boot: the clock by which the kernel notes when a process began.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// The kernel's unit for the times in `/proc/PID/stat`; on x86 it has always been a hundredth of a
/// second.
const TICK: Duration = Duration::from_millis(10);

/// The time now.
pub(super) fn since_boot() -> Duration {
    // Both parts are positive in this clock.
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// When process `pid` began, rounded down to a hundredth of a second.
pub(super) fn process_start(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    parse(&text).with_context(|| format!("{path}: {text:?}"))
}

fn parse(stat: &str) -> Result<Duration> {
    // The second field is the program's name in parentheses and may hold anything; the start is the
    // 22nd.
    let (_, fields) = stat.rsplit_once(')').context("no program name")?;
    let ticks = fields.split_whitespace().nth(22 - 3).context("too few fields")?;
    let ticks: u32 = ticks.parse().with_context(|| format!("{ticks:?} is no time"))?;
    Ok(TICK * ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_found_behind_any_name() {
        let rest = "S 1 2 3 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 3 0 1234 1000 200";
        assert_eq!(parse(&format!("77 (a) b (c) {rest}")).unwrap(), Duration::from_millis(12_340));
        assert!(parse("77 (a) S 1 2").is_err());
    }

    #[test]
    fn this_process_began_before_now() {
        let start = process_start(std::process::id()).unwrap();
        assert!(start > Duration::ZERO && start <= since_boot());
    }
}
