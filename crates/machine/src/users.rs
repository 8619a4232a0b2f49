//! The processes that have a file or a block device open, for messages: as far as this process may
//! look at them.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use plimsoll_text::without_controls;
use rustix::fs::Dev;

/// The most processes that are named. More would not help.
const MOST_NAMED: usize = 4;

/// What a file is, whatever its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A block device, by its number.
    Device(Dev),
    /// A file, by its file system's number and its own.
    File(Dev, u64),
}

impl Identity {
    /// That of the file with `metadata`.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        if metadata.file_type().is_block_device() {
            Self::Device(metadata.rdev())
        } else {
            Self::File(metadata.dev(), metadata.ino())
        }
    }

    /// That of the file at `path`; `None`: it cannot be looked at.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}

/// Names the other processes that have the file of that `identity` open, as far as they may be
/// looked at; `None` if there are none.
#[must_use]
pub fn processes(path: &Path, identity: Identity) -> Option<String> {
    let own = std::process::id();
    // As /proc shows it.
    let path = &fs::canonicalize(path).ok()?;
    let pids = fs::read_dir("/proc").ok()?.flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let found: Vec<String> = pids
        .filter(|pid| *pid != own && has_open(*pid, path, identity).unwrap_or(false))
        .take(MOST_NAMED)
        .map(|pid| format!("{} (process {pid})", name(pid)))
        .collect();
    (!found.is_empty()).then(|| found.join(", "))
}

/// Whether process `pid` has the file of that `identity` open. `path` is canonical.
///
/// # Errors
/// The kernel does not let this process look: that takes CAP_SYS_PTRACE for processes of others.
pub fn has_open(pid: u32, path: &Path, identity: Identity) -> io::Result<bool> {
    let mut hidden = None;
    for link in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let link = link?.path();
        // The descriptors of other names are not looked at: a file system that hangs would hold up
        // this thread.
        match fs::read_link(&link) {
            Ok(target) if target.file_name() == path.file_name() => {
                if Identity::at(&link) == Some(identity) {
                    return Ok(true);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => hidden = Some(error),
            // Another file, or one that was closed meanwhile.
            Ok(_) | Err(_) => {}
        }
    }
    hidden.map_or(Ok(false), Err)
}

/// A process' name: a VMM's tells its VM.
fn name(pid: u32) -> String {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let first = command.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = Path::new(OsStr::from_bytes(first)).file_name().unwrap_or_default();
    // Other programs choose it: nothing of it may break the line.
    without_controls(&name.to_string_lossy()).chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_that_have_a_file_open_are_named() {
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
    fn a_process_that_may_not_be_looked_at_is_told_from_one_that_has_other_files_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.raw");
        fs::write(&path, []).unwrap();
        let identity = Identity::at(&path).unwrap();
        let own = std::process::id();
        assert!(!has_open(own, &path, identity).unwrap());
        let _file = fs::File::open(&path).unwrap();
        assert!(has_open(own, &fs::canonicalize(&path).unwrap(), identity).unwrap());
        has_open(u32::MAX, &path, identity).unwrap_err();
    }
}
