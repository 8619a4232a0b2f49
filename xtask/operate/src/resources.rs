//! What the kernel says of one process: memory, descriptors, mappings, processor time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use plimsoll_machine::limit::unified;
use plimsoll_units::Bytes;

use crate::smaps::kib;

/// A second of a process's time in `/proc/PID/stat`: the same on all machines (`USER_HZ`).
const TICKS: u64 = 100;

/// One process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Resident memory.
    pub resident: Bytes,
    /// The same, where pages that processes share count in equal parts.
    pub pss: Bytes,
    /// Anonymous memory.
    pub anonymous: Bytes,
    /// Open file descriptors.
    pub descriptors: u64,
    /// Mappings: lines of `/proc/PID/maps`.
    pub mappings: u64,
    /// Threads.
    pub threads: u64,
}

impl Reading {
    /// The process with that id; `None` when it is gone.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn of(pid: u32) -> Result<Option<Self>> {
        let read = || -> io::Result<Self> {
            let file = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
            let count = |name: &str| Ok::<_, io::Error>(fs::read_dir(format!("/proc/{pid}/{name}"))?.count());
            let rollup = file("smaps_rollup")?;
            let size = |key: &str| field(&rollup, key).unwrap_or_default();
            Ok(Self {
                resident: size("Rss:"),
                pss: size("Pss:"),
                anonymous: size("Anonymous:"),
                descriptors: count("fd")? as u64,
                mappings: file("maps")?.lines().count() as u64,
                threads: count("task")? as u64,
            })
        };
        unless_gone(read()).with_context(|| format!("reading /proc/{pid}"))
    }
}

/// Processor time that a process has used, threads that have ended included; `None` when the
/// process is gone.
///
/// # Errors
/// `/proc` cannot be read.
pub fn processor_time(pid: u32) -> Result<Option<Duration>> {
    let stat = unless_gone(fs::read_to_string(format!("/proc/{pid}/stat")))
        .with_context(|| format!("reading /proc/{pid}/stat"))?;
    stat.map(|stat| spent(&stat).with_context(|| format!("/proc/{pid}/stat: {stat:?}"))).transpose()
}

/// User and system time of a process with this `stat`.
fn spent(stat: &str) -> Option<Duration> {
    // The name before it may hold anything but ends with the last parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Duration::from_millis((user + system) * 1000 / TICKS))
}

/// The directory of a process's control group (version 2); `None` where there are none.
pub fn group(pid: u32) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    unified(&mounts, &own).into_iter().next()
}

/// The processes that have a file below `directory` open, without this one. Those that may not be
/// looked at do not count.
///
/// # Errors
/// `/proc` cannot be read.
pub fn with_files_below(directory: &Path) -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").context("reading /proc")?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has_one = |pid: &u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|path| path.starts_with(directory))
    };
    Ok(pids.filter(|pid| *pid != std::process::id()).filter(has_one).collect())
}

/// What was read of a process, or `None` where the process is gone.
fn unless_gone<T>(read: io::Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error)
            if error.raw_os_error().is_some_and(|code| code == libc::ESRCH || code == libc::ENOENT) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn field(text: &str, key: &str) -> Option<Bytes> {
    kib(text.lines().find_map(|line| line.strip_prefix(key))?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_a_process_opens_and_uses_is_seen() {
        let own = std::process::id();
        let before = Reading::of(own).unwrap().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let files: Vec<File> =
            (0..40).map(|n| File::create(directory.path().join(n.to_string())).unwrap()).collect();
        let memory = std::hint::black_box(vec![1_u8; 32 << 20]);
        let after = Reading::of(own).unwrap().unwrap();
        assert!(after.anonymous.0 >= before.anonymous.0 + (24 << 20), "{before:?} {after:?}");
        assert!(after.pss <= after.resident && after.mappings > 0 && after.threads > 0);
        // Other tests open and close files at the same time, but not as many.
        assert!(after.descriptors >= before.descriptors + 20, "{before:?} {after:?}");
        drop((memory, files));
    }

    #[test]
    fn a_process_that_is_gone_is_no_error() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert_eq!(Reading::of(pid).unwrap(), None);
        assert_eq!(processor_time(pid).unwrap(), None);
    }

    #[test]
    fn processor_time_is_user_and_system_time() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0 5 1 1";
        assert_eq!(spent(stat), Some(Duration::from_secs(2)));
        assert_eq!(spent("7 (a) S 1"), None);
    }

    #[test]
    fn a_process_is_found_by_its_files() {
        let directory = tempfile::tempdir().unwrap();
        assert!(with_files_below(directory.path()).unwrap().is_empty());
        let file = File::create(directory.path().join("f")).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").stdin(file).spawn().unwrap();
        let found = with_files_below(directory.path()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, [child.id()]);
    }
}
