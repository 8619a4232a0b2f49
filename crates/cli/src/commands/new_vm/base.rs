use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use anyhow::Result;
use plimsoll_image::Format;
use plimsoll_image::chain::Link;
use plimsoll_units::Bytes;
use rustix::fs::ioctl_ficlone;

use super::super::image::fresh::Fresh;
use super::super::image::{refused, source};
use crate::exit::{Status, failed};
use crate::output::Output;
use crate::part::directory;

/// Permissions of a base image, less the umask's: it is not written, because disks are changes of
/// it.
const PERMISSIONS: u32 = 0o444;
/// Unit of a disk's size.
const SECTOR: u64 = 512;
/// Bytes that are copied or compared at a time.
const PIECE: usize = 1 << 20;

/// The image that a VM's disk is a change of.
#[derive(Debug)]
pub(super) struct Base {
    /// Where it is, or will be: in the daemon's directory of images or below.
    pub(super) path: PathBuf,
    pub(super) format: Format,
    /// Bytes of the disk that it holds.
    pub(super) size: u64,
    /// It has to be copied to `path` first.
    is_copied: bool,
    /// Its files, which nobody may write before the disk is there: the VM's own locks follow.
    files: Vec<Link>,
}

impl Base {
    /// Looks for the image `file`, which is of `format`: here, or below `images`. Changes nothing.
    ///
    /// # Errors
    /// There is no such image, or it cannot be used.
    pub(super) fn find(file: &Path, format: Format, images: &Path, output: &Output) -> Result<Self> {
        let is_name = file.components().count() == 1;
        let there = images.join(file);
        let is_there = is_name && fs::exists(file).is_ok_and(|is_here| !is_here) && there.exists();
        let found = if is_there { &there } else { file };
        let path = fs::canonicalize(found).map_err(|error| refused(found, error))?;
        let is_within = fs::canonicalize(images).is_ok_and(|images| path.starts_with(images));
        let home = if is_within { images } else { directory(&path) };
        let files = source::open(&path, format, home, output)?;
        let unusable = |why: String| failed(Status::Refused, format!("{}: {why}", file.display()));
        let size = files[0].size().map_err(|error| refused(&path, error))?;
        if size == 0 || !size.is_multiple_of(SECTOR) {
            return Err(unusable(format!(
                "its {size} bytes are no multiple of {SECTOR}: it is truncated, or no {format} image"
            )));
        }
        if is_within {
            return Ok(Self { path, format, size, is_copied: false, files });
        }
        if files.len() > 1 {
            return Err(unusable(format!(
                "it has a backing file: make one image of both with plimsoll image convert, or move both to {}",
                images.display()
            )));
        }
        match file.file_name() {
            Some(name) if path.is_file() => {
                Ok(Self { path: images.join(name), format, size, is_copied: true, files })
            }
            _ => Err(unusable("it is no file: make one of it with plimsoll image convert".to_owned())),
        }
    }

    /// Copies the image to where it has to be, unless it is there.
    ///
    /// # Errors
    /// There is another image of that name, or the copy fails; none is left then.
    pub(super) fn keep(&self, output: &Output) -> Result<()> {
        if !self.is_copied {
            return Ok(());
        }
        make_directory(directory(&self.path), 0o755)?;
        let from = &self.files[0].file;
        let done = match File::open(&self.path) {
            Ok(kept) => self.compare(from, &kept, output),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.copy(from, output),
            Err(error) => Err(refused(&self.path, error)),
        };
        output.end_progress();
        done
    }

    /// Checks that the image of the same name is the same.
    fn compare(&self, from: &File, kept: &File, output: &Output) -> Result<()> {
        let read = |error| refused(&self.path, error);
        let length = from.metadata().map_err(read)?.len();
        let mut is_same = kept.metadata().map_err(read)?.len() == length;
        let (mut given, mut known) = (vec![0; PIECE], vec![0; PIECE]);
        let mut done = 0;
        while is_same && done < length {
            let count = piece(length - done);
            from.read_exact_at(&mut given[..count], done).map_err(read)?;
            kept.read_exact_at(&mut known[..count], done).map_err(read)?;
            is_same = given[..count] == known[..count];
            done += count as u64;
            output.progress(&format!(
                "comparing with {}: {} of {}",
                self.path.display(),
                Bytes(done),
                Bytes(length)
            ));
        }
        if is_same {
            return Ok(());
        }
        let text = format!(
            "{}: there is another image of that name already: rename the one that you have, or give the path of this one",
            self.path.display()
        );
        Err(failed(Status::Conflict, text))
    }

    fn copy(&self, from: &File, output: &Output) -> Result<()> {
        let fresh = Fresh::begin(&self.path, PERMISSIONS)?;
        let to = fresh.file()?;
        let write = |error: io::Error| refused(&self.path, error);
        // Where the file system can, both share their space.
        if ioctl_ficlone(&to, from).is_err() {
            let length = from.metadata().map_err(write)?.len();
            to.set_len(length).map_err(write)?;
            let mut memory = vec![0; PIECE];
            let mut done = 0;
            while done < length {
                let count = piece(length - done);
                from.read_exact_at(&mut memory[..count], done).map_err(write)?;
                if memory[..count].iter().any(|byte| *byte != 0) {
                    to.write_all_at(&memory[..count], done).map_err(write)?;
                }
                done += count as u64;
                output.progress(&format!(
                    "copying to {}: {} of {}",
                    self.path.display(),
                    Bytes(done),
                    Bytes(length)
                ));
            }
        }
        fresh.finish()
    }
}

/// The length of the next piece of `left` bytes.
fn piece(left: u64) -> usize {
    usize::try_from(left).map_or(PIECE, |left| left.min(PIECE))
}

/// Makes a directory, and those above it, where they are not.
///
/// # Errors
/// The kernel's, and what to do.
pub(super) fn make_directory(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|error| {
        let hint = if error.kind() == io::ErrorKind::PermissionDenied { ": run it as root" } else { "" };
        failed(Status::Refused, format!("{}: {error}{hint}", path.display()))
    })
}
