//! Disks that are qcow2 images: their headers, and their backing files.
//!
//! A VM may write anything into its image, its header too. Only the header is read here, with all
//! of it bounded; the VMM reads the rest.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, anyhow};
use plimsoll_image::Format;
use plimsoll_image::chain::{self, Link};
use plimsoll_protocol::definition::{Disk, ImageFormat};
use plimsoll_units::Bytes;
use rustix::fs::OFlags;

use super::hold;

/// What a file may have beyond its disk: tables, and space that nothing refers to after a crash.
const BEYOND: u64 = 64 << 20;

/// Opens the backing files of the image in `file`, which has `len` bytes. They lie below `images`.
/// Returns them with their formats, and the most bytes that `file` may have.
///
/// # Errors
/// The image cannot be used, or one of its backing files, and why.
pub(super) fn open(
    disk: &Disk,
    file: &File,
    len: u64,
    images: &Path,
) -> anyhow::Result<(Vec<(File, ImageFormat)>, Bytes)> {
    let top = Link::new(disk.path.clone(), file.try_clone()?, Format::Qcow2)?;
    let header = top.header.as_ref().ok_or_else(|| anyhow!("it has no header"))?;
    if !disk.read_only {
        header.may_be_written()?;
    }
    let longest = longest(header.size, len);
    let mut backing = Vec::new();
    for link in chain::below(top, images)?.into_iter().skip(1) {
        let what = || format!("its backing file {}", link.path.display());
        let found = link.file.metadata().with_context(what)?;
        hold(&link.path, &link.file, &found, true).with_context(what)?;
        let format = match link.format() {
            Format::Raw => ImageFormat::Raw,
            Format::Qcow2 => ImageFormat::Qcow2,
        };
        backing.push((link.file, format));
    }
    Ok((backing, longest))
}

/// The most bytes that the file of an image may have, which has `len` now and a disk of `size`.
pub(super) fn longest(size: u64, len: u64) -> Bytes {
    let disk = size.saturating_add(size / 4).saturating_add(BEYOND);
    Bytes(disk.max(len))
}

/// The most bytes that the file of `disk` may have; `None`: it is not there, or no image. A pipe
/// that has taken its place is not waited for.
pub(crate) fn most(disk: &Disk) -> Option<Bytes> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(&disk.path).ok()?;
    let len = file.metadata().ok()?.len();
    match disk.format {
        ImageFormat::Raw => Some(Bytes(len)),
        ImageFormat::Qcow2 => {
            let link = Link::new(disk.path.clone(), file, Format::Qcow2).ok()?;
            Some(longest(link.header.as_ref()?.size, len))
        }
    }
}
