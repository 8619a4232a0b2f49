//! A small file system of its own, in memory: what is free in it is known, and it can be full.

use std::ffi::CString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use plimsoll_units::Bytes;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

/// A file system, unmounted when this is dropped.
#[derive(Debug)]
pub struct Tmpfs {
    directory: TempDir,
}

impl Tmpfs {
    /// Mounts one of `size`, at a new directory whose name begins with `prefix`.
    ///
    /// # Errors
    /// This user may not mount.
    pub fn mount(prefix: &str, size: Bytes) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix(prefix).tempdir()?;
        let options = CString::new(format!("size={}", size.0))?;
        rustix::mount::mount("plimsoll", directory.path(), "tmpfs", MountFlags::empty(), options.as_c_str())
            .with_context(|| format!("mounting a file system at {}", directory.path().display()))?;
        Ok(Self { directory })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// What is free in it.
    pub fn free(&self) -> Result<Bytes> {
        let stat = rustix::fs::statvfs(self.path())
            .with_context(|| format!("asking what is free in {}", self.path().display()))?;
        Ok(Bytes(stat.f_bavail * stat.f_frsize))
    }

    /// Takes all that is free in it, until the result is dropped.
    pub fn fill(&self) -> Result<Full> {
        let full = Full(self.path().join("filler"));
        let file = File::create(&full.0)?;
        let mut length = 0;
        // Others may take a part between the look and the deed.
        while let free @ Bytes(1..) = self.free()? {
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), length, free.0) {
                Ok(()) => length += free.0,
                Err(Errno::NOSPC) => {}
                Err(error) => return Err(error).context("filling a file system"),
            }
        }
        ensure!(self.free()? == Bytes::ZERO, "{} of a full file system are free", self.free()?);
        Ok(full)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Files may still be open in it: it goes with the last of them.
        rustix::mount::unmount(self.path(), UnmountFlags::DETACH).ok();
    }
}

/// A file system that is full. Dropped, it is no longer.
#[derive(Debug)]
#[must_use = "the file system is full only until this is dropped"]
pub struct Full(PathBuf);

impl Drop for Full {
    fn drop(&mut self) {
        // It goes with its file system at the latest.
        fs::remove_file(&self.0).ok();
    }
}
