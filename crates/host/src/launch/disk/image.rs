//! Disks that are qcow2 images: their headers, and their backing files.
//!
//! A VMM that a guest has taken over may write anything into its image, its header too. Only the
//! header is read here, with all of it bounded; the VMM reads the rest. What it says is held
//! against what it said before ([`crate::images`]).

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, anyhow};
use plimsoll_image::Format;
use plimsoll_image::chain::{self, Link};
use plimsoll_image::create::MAX_SIZE;
use plimsoll_protocol::definition::{Disk, ImageFormat};
use plimsoll_units::Bytes;
use rustix::fs::OFlags;

use super::hold;
use crate::images::{KnownFile, KnownImage};

/// What a file may have beyond its disk: tables, and space that nothing refers to after a crash.
const BEYOND: u64 = 64 << 20;

/// An image that is open.
pub(super) struct OpenImage {
    /// Its backing files with their formats.
    pub(super) backing: Vec<(File, ImageFormat)>,
    /// The most bytes that its own file may have.
    pub(super) longest: Bytes,
    /// What it says of itself.
    pub(super) found: KnownImage,
}

/// Opens the backing files of the image in `file`, which has `len` bytes. They lie below `images`.
/// `known` is what it was before; `None`: it is taken as it is.
///
/// # Errors
/// The image cannot be used, or one of its backing files, or is not what is known; and why.
pub(super) fn open(
    disk: &Disk,
    file: &File,
    len: u64,
    known: Option<&KnownImage>,
    images: &Path,
) -> anyhow::Result<OpenImage> {
    let top = Link::new(disk.path.clone(), file.try_clone()?, Format::Qcow2)?;
    let header = top.header.as_ref().ok_or_else(|| anyhow!("it has no header"))?;
    if !disk.read_only {
        header.may_be_written()?;
    }
    let size = Bytes(header.size);
    // The header of one that is only read may be another VM's work, and makes no file longer.
    let longest = if disk.read_only { Bytes(len) } else { longest(header.size, len) };
    let backing: Vec<_> = chain::below(top, images)?.into_iter().skip(1).map(with_format).collect();
    let file = |(link, format): &(Link, ImageFormat)| KnownFile { path: link.path.clone(), format: *format };
    let found = KnownImage { path: disk.path.clone(), size, backing: backing.iter().map(file).collect() };
    if let Some(known) = known {
        known.must_allow(&found, disk)?;
    }
    for (link, _) in &backing {
        let what = || format!("its backing file {}", link.path.display());
        let found = link.file.metadata().with_context(what)?;
        hold(&link.path, &link.file, &found, true).with_context(what)?;
    }
    let backing = backing.into_iter().map(|(link, format)| (link.file, format)).collect();
    Ok(OpenImage { backing, longest, found })
}

fn with_format(link: Link) -> (Link, ImageFormat) {
    let format = match link.format() {
        Format::Raw => ImageFormat::Raw,
        Format::Qcow2 => ImageFormat::Qcow2,
    };
    (link, format)
}

/// The most bytes that the file of an image may have, which has `len` now and a disk of `size`. No
/// header makes that more than the largest disk takes.
pub(super) fn longest(size: u64, len: u64) -> Bytes {
    let size = size.min(MAX_SIZE);
    Bytes((size + size / 4 + BEYOND).max(len))
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
