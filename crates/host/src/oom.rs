//! The kernel's OOM killer: which ends of VMs it explains, and whom it is to end last.

use std::path::Path;
use std::sync::Mutex;

use plimsoll_machine::oom::OomKills;

/// The daemon's `oom_score_adj`: the kernel ends every other process first. One less would make the
/// daemon immune, and a daemon that has taken all memory could not be ended.
const LAST: i32 = -999;

/// Has the kernel end this process after all others. Only root may ask for that.
pub(crate) fn end_me_last() {
    if let Err(e) = std::fs::write("/proc/self/oom_score_adj", LAST.to_string()) {
        tracing::info!("the kernel's OOM killer may end plimsolld before its VMs: oom_score_adj: {e}");
    }
}

/// Has the kernel choose a VMM as it chooses other processes, by what it holds: a child begins with
/// what its parent has.
pub(crate) fn end_as_others(pid: u32) {
    if let Err(e) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), "0") {
        tracing::debug!(pid, "cannot set oom_score_adj: {e}"); // Its parent has set none either.
    }
}

/// The kernel's count of processes that its OOM killer has ended, as far as ends of VMs have been
/// explained by it. Each one explains one end.
#[derive(Debug)]
pub(crate) struct OomWatch {
    kills: OomKills,
    explained: Mutex<u64>,
}

impl OomWatch {
    /// Counts from now on.
    pub(crate) fn start() -> Self {
        Self::of(OomKills::find(Path::new("/proc")))
    }

    fn of(kills: OomKills) -> Self {
        let explained = Mutex::new(kills.count().unwrap_or(0));
        Self { kills, explained }
    }

    /// Whether the OOM killer has ended a process that no other end was explained by.
    pub(crate) fn explains_one(&self) -> bool {
        let Ok(mut explained) = self.explained.lock() else { return false };
        let grown = self.kills.count().is_some_and(|kills| kills > *explained);
        *explained += u64::from(grown);
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kill_explains_one_end() {
        let directory = tempfile::tempdir().unwrap();
        let write =
            |n: u64| std::fs::write(directory.path().join("vmstat"), format!("oom_kill {n}\n")).unwrap();
        write(3);
        let watch = OomWatch::of(OomKills::find(directory.path()));
        assert!(!watch.explains_one());
        write(5);
        assert!(watch.explains_one() && watch.explains_one() && !watch.explains_one());
    }
}
