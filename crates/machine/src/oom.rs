//! How many processes the kernel's OOM killer has ended.

use std::path::{Path, PathBuf};

use crate::limit;

/// A count of processes that the OOM killer has ended: of this process' own control group and all
/// below it where the kernel counts that, else of the whole machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomKills {
    file: PathBuf,
}

impl OomKills {
    /// Finds the file in which the kernel counts. `proc` is `/proc`.
    #[must_use]
    pub fn find(proc: &Path) -> Self {
        let names = ["memory.events", "memory.oom_control"];
        let own = limit::groups(proc).into_iter().flat_map(|group| names.map(|name| group.path().join(name)));
        let counts = |file: &PathBuf| Self { file: file.clone() }.count().is_some();
        let own = own.into_iter().find(counts).map(|file| Self { file });
        own.unwrap_or_else(|| Self::of_machine(proc))
    }

    /// Counts on the whole machine. `proc` is `/proc`.
    #[must_use]
    pub fn of_machine(proc: &Path) -> Self {
        Self { file: proc.join("vmstat") }
    }

    /// Counts in the control group (version 2) at `group` and in all below it.
    #[must_use]
    pub fn of_group(group: &Path) -> Self {
        Self { file: group.join("memory.events") }
    }

    /// How many processes there have been so far. `None` if the kernel does not tell.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        self.number("oom_kill ")
    }

    /// Whether processes were ended because the control group was at its own bound, and not because
    /// the machine had no memory.
    #[must_use]
    pub fn reached_bound(&self) -> bool {
        [self.count(), self.number("oom ")].iter().all(|number| number.is_some_and(|n| n > 0))
    }

    fn number(&self, key: &str) -> Option<u64> {
        let text = std::fs::read_to_string(&self.file).ok()?;
        text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_counts_before_the_machine() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for part in ["self", "g/a"] {
            std::fs::create_dir_all(at(part)).unwrap();
        }
        let mounts = format!("33 30 0:4 / {} rw - cgroup2 cgroup2 rw\n", at("g").display());
        std::fs::write(at("self/mountinfo"), mounts).unwrap();
        std::fs::write(at("self/cgroup"), "0::/a\n").unwrap();
        assert_eq!(OomKills::find(directory.path()).count(), None);
        std::fs::write(at("vmstat"), "oom_kill 7\n").unwrap();
        assert_eq!(OomKills::find(directory.path()).count(), Some(7));
        std::fs::write(at("g/a/memory.events"), "low 0\noom 3\noom_kill 2\noom_group_kill 1\n").unwrap();
        assert_eq!(OomKills::find(directory.path()).count(), Some(2));
        assert_eq!(OomKills::of_group(&at("g/a")).count(), Some(2));
        assert_eq!(OomKills::of_group(&at("g")).count(), None);
        assert!(OomKills::of_group(&at("g/a")).reached_bound());
        std::fs::write(at("g/a/memory.events"), "low 0\noom 0\noom_kill 2\n").unwrap();
        assert!(!OomKills::of_group(&at("g/a")).reached_bound(), "the machine's OOM killer came");
    }
}
