//! The processes and mounts that use a file or a block device: for messages, and where the kernel
//! excludes nobody.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Dev, makedev};

/// The most processes that are named. More would not help.
const MOST_NAMED: usize = 4;

/// What a file is, whatever its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// A block device, by its number.
    Device(Dev),
    /// A file, by its file system's number and its own.
    File(Dev, u64),
}

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        if metadata.file_type().is_block_device() {
            Self::Device(metadata.rdev())
        } else {
            Self::File(metadata.dev(), metadata.ino())
        }
    }

    pub(super) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}

/// Names the processes that have the file of that `identity` open, as far as they may be looked at;
/// this process is none of them. `None`: none is found.
pub(super) fn processes(path: &Path, identity: Identity) -> Option<String> {
    let own = std::process::id();
    // As /proc shows it.
    let path = &fs::canonicalize(path).ok()?;
    let pids = fs::read_dir("/proc").ok()?.flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let found: Vec<String> = pids
        .filter(|pid| *pid != own && has_open(*pid, path, identity))
        .take(MOST_NAMED)
        .map(|pid| format!("{} (process {pid})", name(pid)))
        .collect();
    (!found.is_empty()).then(|| found.join(", "))
}

/// Whether process `pid` has the file of that `identity` open, as far as it may be looked at.
/// `path` is canonical.
pub(super) fn has_open(pid: u32, path: &Path, identity: Identity) -> bool {
    let Ok(links) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    links.flatten().map(|link| link.path()).any(|link| {
        // The descriptors of other names are not looked at: a file system that hangs would hold up
        // this thread.
        let named = |target: PathBuf| target.file_name() == path.file_name();
        fs::read_link(&link).is_ok_and(named) && Identity::at(&link) == Some(identity)
    })
}

/// A process' name: a VMM's tells its VM.
fn name(pid: u32) -> String {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let first = command.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = Path::new(OsStr::from_bytes(first)).file_name().unwrap_or_default();
    // Other programs choose it: nothing of it may break the line.
    name.to_string_lossy().chars().filter(|c| !c.is_control()).take(64).collect()
}

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
    use crate::forks::apart;

    #[test]
    fn processes_that_have_a_file_open_are_named() {
        let _apart = apart();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.raw");
        let file = fs::File::create(&path).unwrap();
        let identity = Identity::at(&path).unwrap();
        assert_eq!(processes(&path, identity), None, "this process does not count");
        let mut child = std::process::Command::new("sleep").arg("60").stdin(file).spawn().unwrap();
        // It has a command line a moment after it is there.
        let command = format!("/proc/{}/cmdline", child.id());
        let begin = std::time::Instant::now();
        while fs::read(&command).unwrap().is_empty() && begin.elapsed().as_secs() < 60 {
            std::thread::yield_now();
        }
        let named = processes(&path, identity);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(named, Some(format!("sleep (process {})", child.id())));
    }

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
