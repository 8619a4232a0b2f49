//! The lab's disks: file system images, in files that have no name any more.
//!
//! **Share.** A copy of a directory of the outside. Debian's cloud kernels have no 9p and the other
//! ways (virtiofs, a network file system) need a server beside QEMU, so the directory is copied
//! when the lab boots. What the lab writes there stays there; `/artifacts` is the way back.
//!
//! **Scratch.** An empty file system for what a host has on its disk: the daemon's records and
//! logs, and VMs' swap space.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use plimsoll_units::Bytes;

use crate::command;
use crate::prctl;
use crate::workspace::step;

/// Room for what the lab may want to write beside the copy, and for the file system's own tables.
const SPARE: u64 = 256 << 20;

/// An ext4 image with a copy of `directory`.
pub(crate) fn copy_of(directory: &Path) -> Result<File> {
    ensure!(directory.is_dir(), "{} is no directory to share with the lab", directory.display());
    step(&format!("copying {} for the lab", directory.display()));
    let size = allocated(directory)?;
    ext4(Bytes(size + size / 8 + SPARE), Some(directory))
}

/// An empty ext4 image of `size`. It takes no more of the disk than is written to it.
pub(crate) fn empty(size: Bytes) -> Result<File> {
    ext4(size, None)
}

fn ext4(size: Bytes, content: Option<&Path>) -> Result<File> {
    let image = tempfile::tempfile().context("making a file for a disk of the lab")?;
    image.set_len(size.0)?;
    let mut command = command::mke2fs()?;
    command.args(["-O", "^has_journal", "-E", "lazy_itable_init=1"]);
    if let Some(directory) = content {
        command.arg("-d").arg(directory);
    }
    command.arg(format!("/proc/self/fd/{}", image.as_raw_fd()));
    prctl::die_with_parent(&mut command, vec![image.as_raw_fd()]);
    command::run(&mut command).context("making a disk of the lab")?;
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
