//! Guests with a disk: its making, and the drivers that their tiny image lacks for it.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use plimsoll_lab::command::{self, run};
use plimsoll_lab::cpio::Archive;
use plimsoll_lab::guest::{Image, MODULES_DIRECTORY};
use plimsoll_lab::kernel::Kernel;
use plimsoll_units::Bytes;
use preflight::deb;

/// Unpacks Debian's `packages` below `root`, in which they are not configured.
pub(super) fn unpack(packages: &[&str], root: &Path) -> Result<()> {
    for package in packages {
        run(Command::new("dpkg-deb").arg("-x").arg(deb::file(package)?).arg(root))?;
    }
    Ok(())
}

/// Moves all that is below `root` into an ext4 file system of `size` in the new file `disk`, made
/// with mke2fs's `options`.
pub(super) fn move_into(root: &Path, disk: &Path, size: Bytes, options: &[&str]) -> Result<()> {
    File::create(disk)?.set_len(size.0)?;
    run(command::mke2fs()?.args(options).arg("-d").arg(root).arg(disk))?;
    fs::remove_dir_all(root)?;
    Ok(())
}

/// The tiny image's first file system with the drivers of ext4: the kernel unpacks one archive
/// after the other.
pub(super) fn initrd(image: &Image) -> Result<Vec<u8>> {
    let mut whole = fs::read(image.initrd())?;
    let mut more = Archive::new(Vec::new());
    for (index, (name, content)) in Kernel::get(image.version)?.modules(&["ext4"])?.iter().enumerate() {
        // The image's init loads what is there in the order of names.
        more.file(&format!("{}/ext4-{index:02}-{name}", MODULES_DIRECTORY), 0o644, content)?;
    }
    whole.extend(more.finish()?);
    Ok(whole)
}
