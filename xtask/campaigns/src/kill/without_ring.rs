//! A thread whose child processes get no io_uring. A VMM then swaps with a thread of its own and
//! keeps its swap file open, where others can reach it; with io_uring only the kernel has it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// Has the kernel refuse io_uring to this thread, and to all threads and processes that it starts,
/// for as long as they run.
pub(super) fn from_now_on() -> Result<()> {
    let refuse = SeccompAction::Errno(u32::try_from(libc::EPERM)?);
    let rules = BTreeMap::from([(libc::SYS_io_uring_setup, Vec::new())]);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, TargetArch::x86_64);
    let program = filter.and_then(BpfProgram::try_from).context("making a filter of system calls")?;
    seccompiler::apply_filter(&program).context("refusing io_uring")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;

    use super::*;

    #[test]
    fn the_filter_is_the_threads_that_asked_for_it() {
        let filtered = || {
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            !status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "0"]))
        };
        let before = filtered();
        assert!(thread::spawn(move || from_now_on().map(|()| filtered()).unwrap()).join().unwrap());
        assert_eq!(filtered(), before);
    }
}
