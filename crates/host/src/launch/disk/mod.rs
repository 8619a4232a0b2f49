//! Disks: files and block devices, for one VM that writes or for several that read.
//!
//! A disk that somebody else uses is refused: another VM, a program that locks as QEMU does
//! ([`plimsoll_image::locks`]), the kernel, which holds a block device exclusively for a mount and
//! for devices that are built on it, and the same storage by another name ([`overlap`]). The same
//! holds for backing files of images, which are only read ([`image`]).

mod cache;
mod grow;
mod image;
mod mounts;
mod overlap;
mod sysfs;

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use plimsoll_image::locks;
use plimsoll_machine::users::{Identity, processes};
use plimsoll_protocol::definition::{Disk, ImageFormat};
use plimsoll_units::Bytes;
use rustix::fs::{Mode, OFlags};

pub(crate) use self::grow::grow;
use self::image::OpenImage;
pub(crate) use self::image::most;
use self::mounts::Mounts;
use self::overlap::Overlap;
use self::sysfs::Sysfs;
use crate::images::KnownImage;

/// Unit of a disk's size.
const SECTOR: u64 = 512;

/// A disk that is open and locked for one VM.
#[derive(Debug)]
pub(super) struct OpenDisk {
    pub(super) file: File,
    /// What the operator should know of it, in one line.
    pub(super) remark: Option<String>,
    /// Its backing files, with their formats: each is that of the one before it.
    pub(super) backing: Vec<(File, ImageFormat)>,
    /// Most bytes that its file may have.
    pub(super) longest: Bytes,
    /// What it says of itself, if it is an image.
    pub(super) image: Option<KnownImage>,
}

/// Opens a disk, whose backing files lie below `images`. `known` is what an image was before;
/// `None`: it is taken as it is. The locks belong to the open files, which the VMM gets: they last
/// as long as the VMM does, whatever becomes of the daemon. Waits for storage.
///
/// # Errors
/// What is wrong with the disk, and what to do.
pub(super) fn open(disk: &Disk, known: Option<&KnownImage>, images: &Path) -> anyhow::Result<OpenDisk> {
    // Opens nothing yet: a pipe does not wait, a tape does not wind.
    let place = rustix::fs::open(&disk.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let place = File::from(place.context("cannot be opened")?);
    let found = place.metadata().context("cannot be looked at")?;
    let kind = found.file_type();
    ensure!(kind.is_file() || kind.is_block_device(), "it is neither a file nor a block device");
    let mut file = reopen(disk, &place, &found)?;
    let len = file.seek(SeekFrom::End(0)).context("its size cannot be had")?;
    ensure!(len > 0, "it is empty: make it with truncate or qemu-img, or restore it");
    ensure!(
        len.is_multiple_of(SECTOR) || disk.format == ImageFormat::Qcow2,
        "its {len} bytes are no multiple of {SECTOR}: it is truncated, or no raw disk"
    );
    hold(&disk.path, &file, &found, disk.read_only)?;
    let remark = cache::apply(disk, &file, len)?;
    Ok(match disk.format {
        ImageFormat::Raw => OpenDisk { file, remark, backing: Vec::new(), longest: Bytes(len), image: None },
        ImageFormat::Qcow2 => {
            let OpenImage { backing, longest, found } = image::open(disk, &file, len, known, images)?;
            OpenDisk { file, remark, backing, longest, image: Some(found) }
        }
    })
}

/// Locks the file that was found at `path`, and looks for other users of it.
fn hold(path: &Path, file: &File, found: &Metadata, read_only: bool) -> anyhow::Result<()> {
    if !locks::take(file, read_only).context("cannot be locked")? {
        bail!(in_use(path, found, read_only));
    }
    // After the locks: of two that start at once, at least one sees the other.
    let overlap = Overlap { sysfs: &Sysfs::host(), mounts: &Mounts::read(), read_only };
    match overlap.find(Identity::of(found)) {
        Some(used) => bail!("it is in use: {used}"),
        None => Ok(()),
    }
}

/// Opens what is at `place`. A block device that is written is opened exclusively.
fn reopen(disk: &Disk, place: &File, found: &Metadata) -> anyhow::Result<File> {
    let exclusive = found.file_type().is_block_device() && !disk.read_only;
    let opened = OpenOptions::new()
        .read(true)
        .write(!disk.read_only)
        .custom_flags(if exclusive { libc::O_EXCL } else { 0 })
        .open(format!("/proc/self/fd/{}", place.as_raw_fd()));
    match opened {
        Err(e) if exclusive && e.raw_os_error() == Some(libc::EBUSY) => {
            let overlap = Overlap { sysfs: &Sysfs::host(), mounts: &Mounts::read(), read_only: false };
            match overlap.find(Identity::of(found)) {
                Some(used) => bail!("it is in use: {used}"),
                None => bail!(in_use(&disk.path, found, false)),
            }
        }
        opened => opened.with_context(|| {
            if disk.read_only { "cannot be opened" } else { "cannot be opened for writing" }
        }),
    }
}

/// The message for a disk that another process holds.
fn in_use(path: &Path, found: &Metadata, read_only: bool) -> String {
    let users = processes(path, Identity::of(found));
    let does = if read_only { "writes it" } else { "writes it or reads it" };
    let users =
        users.map_or_else(|| format!(": another VM or program {does}"), |users| format!(" by {users}"));
    let share = "several VMs may share it only if all of them have read_only = true";
    format!("it is in use{users}; {share}")
}

#[cfg(test)]
mod tests;
