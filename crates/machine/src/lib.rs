//! What the kernel says of the machine's memory, of the control groups that limit it, and of the
//! processes that use a file.
//!
//! It reads files of the kernel and decides nothing: the daemon decides how much of the memory VMs
//! may use. Start at [`Reading`]; [`limit`] finds the groups, [`oom`] counts what the kernel's OOM
//! killer has ended, [`medium`] tells whether a directory is in memory, [`users`] which processes
//! have a file open.

pub mod limit;
pub mod medium;
pub mod oom;
pub mod users;

use std::io;
use std::path::Path;

use plimsoll_units::Bytes;

use crate::limit::Limit;

/// The machine's memory and the limits on it, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// All memory that the machine has.
    pub total: Bytes,
    /// Memory that programs can still get without swapping, as the kernel estimates it.
    pub available: Bytes,
    /// Limits of the control groups that this process is in, its own group first. Limits above
    /// `total` are left out.
    pub limits: Vec<Limit>,
}

impl Reading {
    /// Reads `meminfo`, `self/mountinfo` and `self/cgroup` below `proc`, which is `/proc`, and the
    /// files of the groups that these name. A group whose files are missing has no limit.
    ///
    /// # Errors
    /// `meminfo` cannot be read, or lacks a field.
    pub fn take(proc: &Path) -> io::Result<Self> {
        let path = proc.join("meminfo");
        let told = |e: io::Error| io::Error::new(e.kind(), format!("cannot read {}: {e}", path.display()));
        let text = std::fs::read_to_string(&path).map_err(told)?;
        let field = |key| {
            let missing = || io::Error::other(format!("{} has no {key}", path.display()));
            field(&text, key).ok_or_else(missing)
        };
        let (total, available) = (field("MemTotal:")?, field("MemAvailable:")?);
        let groups = limit::groups(proc);
        let limits = groups.iter().filter_map(limit::Group::limit);
        Ok(Self { total, available, limits: limits.filter(|limit| limit.most < total).collect() })
    }

    /// The smallest limit on memory, if there is any.
    #[must_use]
    pub fn smallest_limit(&self) -> Option<&Limit> {
        self.limits.iter().min_by_key(|limit| limit.most)
    }
}

/// The value of a line such as `MemTotal:  16384 kB`.
#[must_use]
pub fn field(text: &str, key: &str) -> Option<Bytes> {
    text.lines().find_map(|line| kib(line.strip_prefix(key)?))
}

/// The size in `  16384 kB`.
#[must_use]
pub fn kib(text: &str) -> Option<Bytes> {
    let kib: u64 = text.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024).map(Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_tells_its_memory() {
        let reading = Reading::take(Path::new("/proc")).unwrap();
        assert!(reading.available <= reading.total && reading.available > Bytes::ZERO);
        assert!(reading.limits.iter().all(|limit| limit.most < reading.total));
    }

    #[test]
    fn odd_lines_are_no_sizes() {
        assert_eq!(field("A: 1\nMemTotal:   42 kB\n", "MemTotal:"), Some(Bytes(42 << 10)));
        for odd in ["", "kB", "x kB", "-1 kB", "99999999999999999999 kB", "18446744073709551615 kB", "1 MB"] {
            assert_eq!(kib(odd), None, "{odd}");
        }
    }
}
