//! Limits of this machine that a crowd of VMs may meet: named before anything is started.

use std::fs;

use anyhow::{Context, Result, ensure};
use plimsoll_operate::smaps::kib;
use plimsoll_units::Bytes;
use rustix::process::{Resource, getrlimit};

/// Descriptors of the daemon for each VM, and those that it keeps back.
const DESCRIPTORS: (u64, u64) = (10, 300);
/// Threads of a VMM with a model guest.
const THREADS: u64 = 10;
/// Memory of a VMM, with what the kernel keeps for it.
const MEMORY: Bytes = Bytes::mib(5);

/// Checks that this machine has room for `vms` VMs.
///
/// # Errors
/// Which limit is too low, what it is, what it has to be, and how to raise it.
pub(super) fn check(vms: u32) -> Result<()> {
    let vms = u64::from(vms);
    let descriptors = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    suffices("open files of a process (ulimit -Hn)", descriptors, vms * DESCRIPTORS.0 + DESCRIPTORS.1)?;
    let threads = vms * THREADS + running_threads()?;
    for limit in ["pid_max", "threads-max"] {
        let path = format!("/proc/sys/kernel/{limit}");
        suffices(&format!("processes and threads of the machine ({path})"), number(&path)?, threads)?;
    }
    let available = available()?;
    ensure!(
        available >= Bytes(MEMORY.0 * vms),
        "{vms} VMs need {} of memory, and {available} is available: stop other programs, or ask for fewer with --vms",
        Bytes(MEMORY.0 * vms)
    );
    Ok(())
}

fn suffices(what: &str, has: u64, needed: u64) -> Result<()> {
    ensure!(
        has >= needed,
        "the limit of {what} is {has}, and {needed} are needed: raise it, or ask for fewer with --vms"
    );
    Ok(())
}

fn number(path: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    text.trim().parse().with_context(|| format!("{path}: {text:?}"))
}

/// Threads of all processes on this machine: the second number of `12/345` in `/proc/loadavg`.
fn running_threads() -> Result<u64> {
    let text = fs::read_to_string("/proc/loadavg").context("reading /proc/loadavg")?;
    let number = text.split_whitespace().find_map(|word| word.split_once('/')?.1.parse().ok());
    number.with_context(|| format!("/proc/loadavg: {text:?}"))
}

fn available() -> Result<Bytes> {
    let text = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(kib).context("/proc/meminfo does not say what is available")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_too_low_is_named_with_what_it_has_to_be() {
        assert!(suffices("x", 10, 10).is_ok());
        let error = suffices("open files of a process (ulimit -Hn)", 1024, 10_300).unwrap_err().to_string();
        for part in ["open files", "ulimit -Hn", "is 1024", "10300 are needed"] {
            assert!(error.contains(part), "{part:?} is not in {error}");
        }
        assert!(number("/proc/sys/kernel/pid_max").unwrap() > 0);
        assert!(running_threads().unwrap() > 0 && available().unwrap() > Bytes::ZERO);
        assert!(format!("{:#}", check(100_000_000).unwrap_err()).contains("--vms"));
    }
}
