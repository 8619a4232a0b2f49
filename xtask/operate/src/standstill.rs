//! A process that does nothing for a while.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal};

/// How long it may take until all threads of a process have stopped: a thread is in the kernel for
/// no longer than a disk takes.
const DEADLINE: Duration = Duration::from_secs(30);

/// Keeps a process stopped; it goes on when this is dropped.
pub struct Standstill(Pid);

impl Standstill {
    /// Stops the process with that id, and waits until each of its threads stands still.
    pub fn of(pid: u32) -> Result<Self> {
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process id")?;
        rustix::process::kill_process(process, Signal::STOP)
            .with_context(|| format!("stopping process {pid}"))?;
        let stopped = Self(process);
        let deadline = Instant::now() + DEADLINE;
        while !stands_still(pid)? {
            ensure!(Instant::now() < deadline, "process {pid} does not stand still");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(stopped)
    }
}

impl Drop for Standstill {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        rustix::process::kill_process(self.0, Signal::CONT).ok();
    }
}

fn stands_still(pid: u32) -> Result<bool> {
    let tasks = format!("/proc/{pid}/task");
    for task in fs::read_dir(&tasks).with_context(|| format!("reading {tasks}"))? {
        // A thread that has ended meanwhile does nothing either.
        let stat = fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
        // The name before it may hold anything but ends with the last parenthesis.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if state.is_some_and(|state| !matches!(state, 'T' | 'Z' | 'X')) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_stands_still_until_it_may_go_on() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let still = Standstill::of(child.id()).unwrap();
        assert!(stands_still(child.id()).unwrap());
        drop(still);
        let deadline = Instant::now() + DEADLINE;
        while stands_still(child.id()).unwrap() {
            assert!(Instant::now() < deadline, "it does not go on");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
