//! One VMM's process, held by a pidfd so that its number can never come to mean another.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Child;

use anyhow::{Context, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process that this daemon or an earlier one started.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Process {
    /// Takes hold of a child, which cannot be gone before it is waited for.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn of_child(child: &Child) -> anyhow::Result<Self> {
        let pid = Pid::from_child(child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?;
        Ok(Self { pid, pidfd })
    }

    /// Takes hold of the process with number `pid`, if it is the one that began at `start` (see [`start_time`]).
    ///
    /// # Errors
    /// It is gone, or its number belongs to another by now.
    pub(crate) fn find(pid: u32, start: u64) -> anyhow::Result<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or_else(|| anyhow!("{pid} is no process id"))?;
        let pidfd = pidfd_open(number, PidfdFlags::empty()).with_context(|| format!("process {pid}"))?;
        anyhow::ensure!(start_time(pid)? == start, "process {pid} is another one by now");
        Ok(Self { pid: number, pidfd })
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Whether it has ended.
    pub(crate) fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    /// Ends it at once. A process that is gone needs no killing.
    pub(crate) fn kill(&self) {
        if let Err(e) = pidfd_send_signal(&self.pidfd, Signal::KILL)
            && e != rustix::io::Errno::SRCH
        {
            tracing::error!(pid = self.pid(), "cannot kill: {e}");
        }
    }

    /// A descriptor that becomes readable when the process has ended.
    pub(crate) fn watch(&self) -> std::io::Result<OwnedFd> {
        self.pidfd.as_fd().try_clone_to_owned()
    }
}

/// When a process began, in clock ticks since the machine did: with its number it names one process for good.
///
/// # Errors
/// The process is gone or `/proc` makes no sense.
pub(crate) fn start_time(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The second field is the program's name in parentheses and may hold anything; the start is field 22.
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest);
    let field = after_name.and_then(|rest| rest.split_whitespace().nth(19));
    field.and_then(|f| f.parse().ok()).ok_or_else(|| anyhow!("{path} has no start time"))
}

/// This boot of the machine: process numbers and start times of an earlier one mean nothing.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| String::new(), |id| id.trim().to_owned())
}

/// How a child has ended, in words.
pub(crate) fn ending(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(9)) => "signal 9, SIGKILL".to_owned(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}

/// The last line of a log, without the noise of a terminal; empty where there is none.
pub(crate) fn last_line(log: &Path) -> String {
    const TAIL: u64 = 4096;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(TAIL)))?;
        let mut tail = Vec::new();
        file.take(TAIL).read_to_end(&mut tail)?;
        Ok(tail)
    };
    let tail = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&tail);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_number_and_start_only() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let start = start_time(pid).unwrap();
        assert!(Process::find(pid, start + 1).is_err());
        let found = Process::find(pid, start).unwrap();
        assert!(!found.is_gone());
        found.kill();
        assert_eq!(ending(child.wait().unwrap()), "signal 9, SIGKILL");
        assert!(found.is_gone());
        assert!(Process::find(pid, start).is_err());
        found.kill();
    }

    #[test]
    fn the_last_line_of_a_log_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        assert_eq!(last_line(&log), "");
        std::fs::write(&log, format!("{}\nlast\x1b one\n\n", "x".repeat(9000))).unwrap();
        assert_eq!(last_line(&log), "last one");
    }
}
