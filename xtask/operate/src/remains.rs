//! What VMs leave behind when they are off: nothing, if all is well.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::resources::{Reading, group, with_files_below};
use crate::stage::Stage;

/// How long a daemon may take to clear up after the last VM: it removes groups and reads logs once
/// a second.
const CLEARS: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(200);

/// What there is of VMs beside what a daemon without any has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Remains {
    /// Processes that still have files of the daemon open, without the daemon.
    pub processes: Vec<u32>,
    /// Control groups of VMs.
    pub groups: Vec<PathBuf>,
    /// Run directories, records, logs and swap space.
    pub files: Vec<PathBuf>,
    /// Descriptors of the daemon beyond those that it had before.
    pub descriptors: u64,
}

impl Remains {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing is left over");
        }
        let of = |paths: &[PathBuf]| match paths {
            [] => String::new(),
            [first, ..] => format!(" ({}{})", first.display(), if paths.len() > 1 { ", ..." } else { "" }),
        };
        write!(
            f,
            "left over: {} processes {:?}, {} control groups{}, {} files{}, {} descriptors of the daemon",
            self.processes.len(),
            &self.processes[..self.processes.len().min(5)],
            self.groups.len(),
            of(&self.groups),
            self.files.len(),
            of(&self.files),
            self.descriptors
        )
    }
}

/// What a daemon had before its first VM, and the groups that VMs had since.
#[derive(Clone, Debug)]
pub struct Before {
    descriptors: u64,
    groups: BTreeSet<PathBuf>,
}

impl Before {
    /// Looks at the daemon of `stage`, which has no VM yet.
    ///
    /// # Errors
    /// It does not run.
    pub fn of(stage: &Stage) -> Result<Self> {
        Ok(Self { descriptors: descriptors(stage)?, groups: BTreeSet::new() })
    }

    /// Notes the control groups of the VMs with these processes.
    pub fn note(&mut self, pids: impl IntoIterator<Item = u32>) {
        // A process that has just ended has none.
        self.groups.extend(pids.into_iter().filter_map(group).filter(|group| is_of_vm(group)));
    }

    /// What is left when all VMs are off and forgotten. Gives the daemon some seconds to clear up.
    ///
    /// # Errors
    /// The daemon does not run, or what it leaves cannot be looked at.
    pub fn remains(&self, stage: &Stage) -> Result<Remains> {
        let deadline = Instant::now() + CLEARS;
        loop {
            let now = self.look(stage)?;
            if now.is_empty() || Instant::now() >= deadline {
                return Ok(now);
            }
            thread::sleep(LOOK);
        }
    }

    fn look(&self, stage: &Stage) -> Result<Remains> {
        let daemon = stage.daemon_pid()?;
        let mut processes = with_files_below(stage.path())?;
        processes.retain(|pid| *pid != daemon);
        let groups = self.groups.iter().filter(|group| group.exists()).cloned().collect();
        let kept = ["run/vms", "state/vms", "state/logs", "state/swap"];
        let files = kept.iter().flat_map(|name| entries(&stage.path().join(name))).collect();
        let descriptors = descriptors(stage)?.saturating_sub(self.descriptors);
        Ok(Remains { processes, groups, files, descriptors })
    }
}

/// Whether it is the group of a VM, and not the daemon's own.
fn is_of_vm(group: &Path) -> bool {
    group.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vm-"))
}

fn descriptors(stage: &Stage) -> Result<u64> {
    let daemon = stage.daemon_pid()?;
    let reading = Reading::of(daemon)?.context("the daemon has ended")?;
    Ok(reading.descriptors)
}

/// What is in a directory; nothing if it does not exist.
fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_remains_is_named() {
        assert_eq!(Remains::default().to_string(), "nothing is left over");
        let left = Remains {
            processes: vec![7],
            groups: vec!["/g/vm-a.7".into()],
            files: vec!["/run/vms/a".into(), "/run/vms/b".into()],
            descriptors: 3,
        };
        let text = left.to_string();
        for part in ["1 processes [7]", "/g/vm-a.7", "2 files (/run/vms/a, ...)", "3 descriptors"] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    }

    #[test]
    fn only_groups_of_vms_count() {
        assert!(is_of_vm("/sys/fs/cgroup/p/vm-a.12".as_ref()));
        assert!(!is_of_vm("/sys/fs/cgroup/p/daemon".as_ref()) && !is_of_vm("/".as_ref()));
    }
}
