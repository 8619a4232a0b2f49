//! Disks: raw files and block devices, locked against a second writer.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use anyhow::{Context, bail, ensure};
use plimsoll_protocol::definition::Disk;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// Unit of a disk's size.
const SECTOR: u64 = 512;

/// Opens a disk. The lock belongs to the open file, which the VMM gets: it lasts as long as the VMM
/// does, whatever becomes of the daemon.
///
/// # Errors
/// What is wrong with the disk, and what to do.
pub(super) fn open(disk: &Disk) -> anyhow::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(!disk.read_only)
        // A pipe must not make the open wait.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(&disk.path)
        .with_context(|| if disk.read_only { "cannot be opened" } else { "cannot be opened for writing" })?;
    let kind = file.metadata().context("cannot be looked at")?.file_type();
    ensure!(kind.is_file() || kind.is_block_device(), "it is neither a file nor a block device");
    let len = file.seek(SeekFrom::End(0)).context("its size cannot be had")?;
    ensure!(len > 0, "it is empty: make it with truncate or qemu-img, or restore it");
    ensure!(
        len.is_multiple_of(SECTOR),
        "its {len} bytes are no multiple of {SECTOR}: it is truncated, or no raw disk"
    );
    let operation = if disk.read_only {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    match rustix::fs::flock(&file, operation) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => bail!(
            "it is in use: another VM or program writes it{}",
            if disk.read_only {
                ""
            } else {
                " or reads it; several VMs may share it only if all of them have read_only = true"
            }
        ),
        Err(e) => Err(e).context("cannot be locked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(path: &std::path::Path, read_only: bool) -> Disk {
        Disk { path: path.to_owned(), read_only, iops: None, bandwidth: None }
    }

    #[test]
    fn many_may_read_a_disk_or_one_may_write_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.raw");
        std::fs::write(&path, [0; 4096]).unwrap();
        let writer = open(&disk(&path, false)).unwrap();
        for read_only in [false, true] {
            assert!(format!("{:#}", open(&disk(&path, read_only)).unwrap_err()).contains("in use"));
        }
        drop(writer);
        let _reader = open(&disk(&path, true)).unwrap();
        assert!(open(&disk(&path, true)).is_ok());
        assert!(open(&disk(&path, false)).is_err());
    }

    #[test]
    fn what_is_no_disk_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.raw");
        let verdict = |path: &std::path::Path| format!("{:#}", open(&disk(path, true)).unwrap_err());
        assert!(verdict(&path).contains("No such file"));
        assert!(verdict(directory.path()).contains("neither"));
        std::fs::write(&path, []).unwrap();
        assert!(verdict(&path).contains("empty"));
        std::fs::write(&path, [0; 100]).unwrap();
        assert!(verdict(&path).contains("truncated"));
        assert!(verdict(std::path::Path::new("/dev/null")).contains("neither"));
    }
}
