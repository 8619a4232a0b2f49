//! A directory of the outside as the lab sees it: a file system image with a copy of it.
//!
//! Debian's cloud kernels have no 9p and the other ways (virtiofs, a network file system) need a server beside QEMU, so
//! the directory is copied when the lab boots. What the lab writes there stays there; `/artifacts` is the way back.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use preflight::packages;

use crate::prctl;
use crate::workspace::step;

/// Room for what the lab may want to write beside the copy, and for the file system's own tables.
const SPARE: u64 = 256 << 20;

/// An ext4 image with a copy of `directory`, in a file that has no name any more.
pub(super) fn build(directory: &Path) -> Result<File> {
    ensure!(directory.is_dir(), "{} is no directory to share with the lab", directory.display());
    step(&format!("copying {} for the lab", directory.display()));
    let size = allocated(directory)?;
    let size = size + size / 8 + SPARE;
    let image = tempfile::tempfile().context("making a file for the shared directory")?;
    image.set_len(size)?;
    let mke2fs = packages::find("mke2fs").context("mke2fs not found: install e2fsprogs")?;
    let mut command = Command::new(mke2fs);
    command.args([
        "-q",
        "-F",
        "-t",
        "ext4",
        "-O",
        "^has_journal",
        "-E",
        "lazy_itable_init=1",
        "-m",
        "0",
        "-d",
    ]);
    command.arg(directory).arg(format!("/proc/self/fd/{}", image.as_raw_fd())).stdin(Stdio::null());
    prctl::die_with_parent(&mut command, vec![image.as_raw_fd()]);
    let output = command.output().context("starting mke2fs")?;
    if !output.status.success() {
        bail!("mke2fs of {}: {}", directory.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(image)
}

/// Bytes that the files below `path` take on disk; holes are not counted, and mke2fs keeps them.
fn allocated(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    let entries = std::fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?;
    for entry in entries {
        let entry = entry?;
        let facts = entry.metadata()?;
        // Each file takes an inode and at least part of a directory's block.
        total += facts.blocks() * 512 + 4096;
        if facts.is_dir() {
            total += allocated(&entry.path())?;
        }
    }
    Ok(total)
}
