//! The kernel's OOM killer: which ends of VMs it explains, and that it ends this process last.

use std::path::Path;
use std::sync::Mutex;

use plimsoll_machine::oom::OomKills;
use plimsoll_protocol::VmName;

use crate::cgroup::Cgroups;

/// The daemon's `oom_score_adj`: the kernel ends every other process first. One less would make the
/// daemon immune, and a daemon that has taken all memory could not be ended.
const LAST: i32 = -999;

/// Has the kernel end this process after all others. Only root may ask for that.
pub(crate) fn end_me_last() {
    if let Err(e) = std::fs::write("/proc/self/oom_score_adj", LAST.to_string()) {
        tracing::info!("the kernel's OOM killer may end plimsolld before its VMs: oom_score_adj: {e}");
    }
}

/// Has the kernel choose a VMM by the memory that it holds, like other processes. A child inherits
/// the daemon's `oom_score_adj`.
pub(crate) fn end_as_others(pid: u32) {
    if let Err(e) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), "0") {
        tracing::debug!(pid, "cannot set oom_score_adj: {e}"); // Its parent has set none either.
    }
}

/// Why the OOM killer ended a VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OomKill {
    /// It used more than its own control group may.
    OwnBound,
    /// The machine, or a group above, was short of memory.
    Shortage,
}

/// The kernel's count of processes that its OOM killer has ended, as far as ends of VMs have been
/// explained by it. Each one explains one end.
#[derive(Debug)]
pub(crate) struct OomWatch {
    kills: OomKills,
    explained: Mutex<u64>,
    cgroups: Option<Cgroups>,
}

impl OomWatch {
    /// Counts from now on, in `cgroups` where the kernel counts there.
    pub(crate) fn start(cgroups: Option<Cgroups>) -> Self {
        let groups = cgroups.as_ref().and_then(Cgroups::oom_kills);
        Self::of(groups.unwrap_or_else(|| OomKills::find(Path::new("/proc"))), cgroups)
    }

    fn of(kills: OomKills, cgroups: Option<Cgroups>) -> Self {
        let explained = Mutex::new(kills.count().unwrap_or(0));
        Self { kills, explained, cgroups }
    }

    /// Whether the OOM killer has ended the VMM of `vm`, process `pid`, whose group is still there,
    /// as far as can be told.
    pub(crate) fn explains(&self, vm: &VmName, pid: u32) -> Option<OomKill> {
        let one = self.explains_one();
        match &self.cgroups {
            Some(cgroups) if cgroups.oom_killed(vm, pid) => Some(OomKill::OwnBound),
            _ => one.then_some(OomKill::Shortage),
        }
    }

    /// Whether the OOM killer has ended a process that no other end was explained by.
    fn explains_one(&self) -> bool {
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
        let watch = OomWatch::of(OomKills::find(directory.path()), None);
        assert!(!watch.explains_one());
        write(5);
        assert!(watch.explains_one() && watch.explains_one() && !watch.explains_one());
    }
}
