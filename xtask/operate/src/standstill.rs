//! A process that does nothing for a while.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal};

use crate::process;

/// How long it may take until all threads of a process have stopped.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long a thread is in the kernel that waits for a disk. One that waits there for a page of
/// guest memory (KVM reads the guest's page tables, for example) does not stop before it has the
/// page, and the thread that would bring it has stopped.
const IN_KERNEL: Duration = Duration::from_secs(2);
/// How long the process goes on then.
const PAUSE: Duration = Duration::from_millis(20);

/// Keeps a process stopped; it goes on when this is dropped.
pub struct Standstill(Pid);

impl Standstill {
    /// Stops the process with that id, and waits until each of its threads stands still. Where one
    /// of them needs another to come to that, the process goes on for a moment.
    pub fn of(pid: u32) -> Result<Self> {
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process id")?;
        let deadline = Instant::now() + DEADLINE;
        loop {
            rustix::process::kill_process(id, Signal::STOP)
                .with_context(|| format!("stopping process {pid}"))?;
            let stopped = Self(id);
            let begin = Instant::now();
            while begin.elapsed() < IN_KERNEL {
                if stands_still(pid)? {
                    return Ok(stopped);
                }
                thread::sleep(Duration::from_millis(1));
            }
            ensure!(
                Instant::now() < deadline,
                "process {pid} does not stand still:\n{}",
                process::stacks(pid)
            );
            drop(stopped);
            thread::sleep(PAUSE);
        }
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
