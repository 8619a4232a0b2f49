//! Processor time and memory of the daemon and of all VMMs, as the kernel accounts them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use plimsoll_operate::Stage;
use plimsoll_operate::resources::{self, Reading};

pub(super) use plimsoll_operate::resources::Reading as Memory;

/// Percent of one processor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) daemon: f64,
    /// All VMMs together.
    pub(super) vmms: f64,
}

/// What daemon and VMMs (`pids`) take while `work` runs.
pub(super) fn over(stage: &Stage, pids: &[u32], work: impl FnOnce() -> Result<()>) -> Result<Cost> {
    let daemon = stage.daemon_pid()?;
    let (begin, daemon_before, vmms_before) = (Instant::now(), of(&[daemon])?, of(pids)?);
    work()?;
    let (daemon_after, vmms_after) = (of(&[daemon])?, of(pids)?);
    let percent = |before: Duration, after: Duration| {
        after.saturating_sub(before).as_secs_f64() / begin.elapsed().as_secs_f64() * 100.0
    };
    Ok(Cost { daemon: percent(daemon_before, daemon_after), vmms: percent(vmms_before, vmms_after) })
}

fn of(pids: &[u32]) -> Result<Duration> {
    let time =
        |pid: &u32| resources::processor_time(*pid)?.with_context(|| format!("process {pid} has ended"));
    pids.iter().map(time).sum()
}

/// What the daemon and each VMM have now.
pub(super) fn memory(stage: &Stage, pids: &[u32]) -> Result<(Memory, Vec<Memory>)> {
    let of = |pid: u32| Reading::of(pid)?.with_context(|| format!("process {pid} has ended"));
    let daemon = stage.daemon_pid()?;
    Ok((of(daemon)?, pids.iter().map(|pid| of(*pid)).collect::<Result<_>>()?))
}
