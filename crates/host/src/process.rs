//! One VMM's process, held by a pidfd so that its number can never come to mean another.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Child;

use anyhow::Context;
use plimsoll_text::without_controls;
use plimsoll_units::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, pidfd_open, pidfd_send_signal, prlimit, test_kill_process,
};

use crate::oom::OomKill;

/// Where the kernel shows processes.
const PROC: &str = "/proc";

/// Why [`Process::find`] has no process to return.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotFound {
    /// The process has ended for good: no process has its number, or another start time.
    #[error("{0}")]
    Gone(String),
    /// The process may run: the daemon could not find out, for want of descriptors for example.
    #[error("{0}")]
    Unknown(String),
}

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

    /// Takes hold of the process with number `pid`, if it is the one that began at `start` (see
    /// [`start_time`]).
    ///
    /// # Errors
    /// [`NotFound::Gone`] only where the kernel says so; every other failure says nothing of the
    /// process.
    pub(crate) fn find(pid: u32, start: u64) -> Result<Self, NotFound> {
        let number =
            number(pid).ok_or_else(|| NotFound::Unknown(format!("{pid} is not a process number")))?;
        let pidfd = match pidfd_open(number, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Err(has_ended(pid)),
            result => result,
        };
        // Its number cannot come to mean another process any more.
        must_run(pid, start)?;
        let pidfd = pidfd.map_err(|e| NotFound::Unknown(format!("cannot open process {pid}: {e}")))?;
        let found = Self { pid: number, pidfd };
        if found.is_gone() { Err(has_ended(pid)) } else { Ok(found) }
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Whether it has ended.
    pub(crate) fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    /// The user that it runs as; `None`: it is gone, or closed to this user.
    pub(crate) fn user(&self) -> Option<u32> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let user = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next());
        // The number may be another process' by now.
        if self.is_gone() { None } else { user?.parse().ok() }
    }

    /// Kills it. Nothing happens if it is gone.
    pub(crate) fn kill(&self) {
        if let Err(e) = pidfd_send_signal(&self.pidfd, Signal::KILL)
            && e != Errno::SRCH
        {
            tracing::error!(pid = self.pid(), "cannot kill: {e}");
        }
    }

    /// Lets it write files of `longest` bytes, where it may not yet.
    ///
    /// # Errors
    /// Its limit cannot be read, or this process may not raise it.
    pub(crate) fn allow_file_length(&self, longest: Bytes) -> anyhow::Result<()> {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.pid()));
        let limits = limits.context("its VM's limits cannot be read")?;
        let now = file_length(&limits).context("its VM's limit of files' lengths cannot be read")?;
        if self.is_gone() || now >= longest {
            return Ok(());
        }
        let limit = Rlimit { current: Some(longest.0), maximum: Some(longest.0) };
        let allowed = prlimit(Some(self.pid), Resource::Fsize, limit);
        allowed.context(
            "its VM cannot be allowed to write so long a file: that takes a plimsolld that runs as root, with \
             CAP_SYS_RESOURCE",
        )?;
        Ok(())
    }

    /// A descriptor that becomes readable when the process has ended.
    pub(crate) fn watch(&self) -> std::io::Result<OwnedFd> {
        self.pidfd.as_fd().try_clone_to_owned()
    }
}

/// The most bytes that a process may write to a file, by its `/proc/PID/limits`.
pub(crate) fn file_length(limits: &str) -> Option<Bytes> {
    let soft =
        limits.lines().find_map(|line| line.strip_prefix("Max file size")?.split_whitespace().next())?;
    if soft == "unlimited" { Some(Bytes(u64::MAX)) } else { soft.parse().ok().map(Bytes) }
}

/// Makes sure that process `pid` is the one that began at `start` (see [`start_time`]). Keeps no
/// descriptor.
///
/// # Errors
/// As [`Process::find`].
pub(crate) fn must_run(pid: u32, start: u64) -> Result<(), NotFound> {
    must_run_by(Path::new(PROC), pid, start)
}

/// The same, by what is mounted at `proc`. That a process is not there proves nothing: it may be
/// hidden (`hidepid`), or nothing be mounted. Only the kernel's own word is proof.
fn must_run_by(proc: &Path, pid: u32, start: u64) -> Result<(), NotFound> {
    let unknown = |e: &dyn std::fmt::Display| {
        Err(NotFound::Unknown(format!("cannot look at process {pid} in {}: {e}", proc.display())))
    };
    match start_time_by(proc, pid) {
        Ok(began) if began == start => Ok(()),
        Ok(_) => Err(NotFound::Gone(format!("process {pid} is another one by now"))),
        Err(e) => match number(pid).map(test_kill_process) {
            Some(Err(Errno::SRCH)) => Err(has_ended(pid)),
            _ => unknown(&e),
        },
    }
}

/// As the kernel's calls take it; `None`: no process has that number.
fn number(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

fn has_ended(pid: u32) -> NotFound {
    NotFound::Gone(format!("process {pid} has ended"))
}

/// When a process began, in clock ticks since the machine did: with its number it names one process
/// for good.
///
/// # Errors
/// `InvalidData` where `/proc` makes no sense; the kernel's else.
pub(crate) fn start_time(pid: u32) -> io::Result<u64> {
    start_time_by(Path::new(PROC), pid)
}

fn start_time_by(proc: &Path, pid: u32) -> io::Result<u64> {
    let stat = String::from_utf8_lossy(&std::fs::read(proc.join(format!("{pid}/stat")))?).into_owned();
    // The second field is the program's name in parentheses and may hold anything; the start is
    // field 22.
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest);
    let field = after_name.and_then(|rest| rest.split_whitespace().nth(19));
    let invalid =
        || io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has no start time"));
    field.and_then(|f| f.parse().ok()).ok_or_else(invalid)
}

/// This boot of the machine: process numbers and start times of an earlier one mean nothing.
///
/// # Errors
/// The kernel's: the boot is unknown then, and not another one.
pub(crate) fn boot_id() -> io::Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

/// Describes how a child has ended. `oom` tells whether the kernel's OOM killer has ended it, as
/// far as can be told.
pub(crate) fn ending(status: std::process::ExitStatus, oom: impl FnOnce() -> Option<OomKill>) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(9)) => match oom() {
            Some(OomKill::OwnBound) => {
                "signal 9, SIGKILL, by the kernel's OOM killer: it used more memory than it was granted".to_owned()
            }
            Some(OomKill::Shortage) => {
                "signal 9, SIGKILL, by the kernel's OOM killer: the host or a control group was short of memory"
                    .to_owned()
            }
            None => {
                "signal 9, SIGKILL, not sent by plimsolld: by an operator, or by the kernel for want of memory (see dmesg)"
                    .to_owned()
            }
        },
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}

/// The last line of a log without control characters; empty if there is no line.
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
    without_controls(line)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::forks::apart;

    /// Whether this process may raise a limit that was lowered: that takes CAP_SYS_RESOURCE, which
    /// not all of root have, in containers for example.
    pub(crate) fn may_raise_limits() -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        u64::from_str_radix(capabilities.trim(), 16).unwrap() & 1 << 24 != 0
    }

    #[test]
    fn a_process_is_allowed_longer_files_and_never_shorter_ones() {
        let _apart = apart();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of_child(&child).unwrap();
        let limits = || std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        let before = file_length(&limits()).unwrap();
        process.allow_file_length(Bytes::mib(1)).unwrap();
        assert_eq!(file_length(&limits()), Some(before), "it may write more already");
        let limit = Rlimit { current: Some(1 << 20), maximum: Some(1 << 20) };
        prlimit(Some(process.pid), Resource::Fsize, limit).unwrap();
        assert_eq!(file_length(&limits()), Some(Bytes::mib(1)));
        let raised = process.allow_file_length(Bytes::mib(2));
        let most = if may_raise_limits() { 2 } else { 1 };
        assert_eq!((raised.is_ok(), file_length(&limits())), (most == 2, Some(Bytes::mib(most))));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(
            file_length("Max file size             unlimited            unlimited  bytes\n"),
            Some(Bytes(u64::MAX))
        );
        assert_eq!(file_length("Max cpu time              unlimited            unlimited  seconds\n"), None);
    }

    #[test]
    fn a_process_is_found_by_number_and_start_only() {
        let _apart = apart();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let start = start_time(pid).unwrap();
        assert!(matches!(Process::find(pid, start + 1), Err(NotFound::Gone(_))));
        assert!(matches!(Process::find(0, start), Err(NotFound::Unknown(_))));
        let found = Process::find(pid, start).unwrap();
        assert!(!found.is_gone());
        found.kill();
        let status = child.wait().unwrap();
        assert!(ending(status, || None).contains("SIGKILL, not sent by plimsolld"));
        let by_oom = |kill| ending(status, || Some(kill));
        assert!(by_oom(OomKill::Shortage).contains("by the kernel's OOM killer: the host or"));
        assert!(by_oom(OomKill::OwnBound).contains("more memory than it was granted"));
        assert!(found.is_gone());
        assert!(matches!(Process::find(pid, start), Err(NotFound::Gone(_))));
        found.kill();
    }

    #[test]
    fn a_process_that_proc_does_not_show_may_run() {
        let _apart = apart();
        let (own, empty) = (std::process::id(), tempfile::tempdir().unwrap());
        let start = start_time(own).unwrap();
        must_run_by(Path::new(PROC), own, start).unwrap();
        assert!(matches!(must_run_by(empty.path(), own, start), Err(NotFound::Unknown(_))));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(matches!(must_run_by(empty.path(), child.id(), start), Err(NotFound::Gone(_))));
    }

    #[test]
    fn the_user_of_a_process_is_found_while_it_runs() {
        let _apart = apart();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of_child(&child).unwrap();
        assert_eq!(process.user(), Some(rustix::process::getuid().as_raw()));
        process.kill();
        child.wait().unwrap();
        assert_eq!(process.user(), None);
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
