//! The file systems that are mounted, for messages, and where the kernel excludes nobody.

use std::fs;
use std::path::PathBuf;

use plimsoll_machine::users::Identity;
use rustix::fs::{Dev, makedev};

/// The file systems that are mounted, as this process sees them.
#[derive(Debug)]
pub(super) struct Mounts(Vec<Mount>);

#[derive(Debug)]
struct Mount {
    device: Dev,
    /// The device that it names: some file systems have numbers of their own.
    source: PathBuf,
    at: String,
    writable: bool,
}

impl Mounts {
    /// Reads them.
    pub(super) fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    /// See proc_pid_mountinfo(5).
    pub(super) fn parse(text: &str) -> Self {
        let mount = |line: &str| {
            let (front, back) = line.split_once(" - ")?;
            let mut front = front.split(' ').skip(2);
            let (major, minor) = front.next()?.split_once(':')?;
            let at = front.nth(1)?.replace("\\040", " ");
            let mut back = back.split(' ').skip(1);
            let source = PathBuf::from(back.next()?);
            let writable = back.next()?.split(',').any(|option| option == "rw");
            Some(Mount { device: makedev(major.parse().ok()?, minor.parse().ok()?), source, at, writable })
        };
        Self(text.lines().filter_map(mount).collect())
    }

    /// Where block device `device` is mounted; if `writable`, only where the file system may write.
    pub(super) fn of(&self, device: Dev, writable: bool) -> Option<&str> {
        let names = |mount: &Mount| {
            mount.source.starts_with("/dev") && Identity::at(&mount.source) == Some(Identity::Device(device))
        };
        let found = self
            .0
            .iter()
            .find(|mount| (mount.writable || !writable) && (mount.device == device || names(mount)));
        found.map(|mount| mount.at.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_number_and_by_what_it_may_do() {
        let mounts = Mounts::parse(
            "36 35 7:3 / /mnt/a\\040b rw,noatime shared:1 - ext4 /dev/loop3 rw,errors=continue\n\
             37 35 7:4 / /mnt/c ro - ext4 /dev/loop4 ro\n\
             broken\n",
        );
        assert_eq!(mounts.of(makedev(7, 3), true), Some("/mnt/a b"));
        assert_eq!((mounts.of(makedev(7, 4), true), mounts.of(makedev(7, 4), false)), (None, Some("/mnt/c")));
        assert_eq!(mounts.of(makedev(7, 5), false), None);
    }
}
