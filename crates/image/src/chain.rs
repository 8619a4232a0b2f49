//! Opening an image with its backing files, by path.
//!
//! An image names its backing file, and may come from anybody. So backing files are looked for
//! below one directory only, which the caller names, and through no symbolic link; and their
//! formats are those that images state. Otherwise the disk of a VM could be any file of the host.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::beneath::Beneath;
use crate::error::Error;
use crate::format::Format;
use crate::header::Header;
use crate::image::{Image, Raw};
use crate::qcow2::Qcow2;
use crate::storage::{FileStorage, Storage};

/// Most files of an image: more are slow, and a mistake.
pub const MAX_FILES: usize = 8;

/// A file of an image.
#[derive(Debug)]
pub struct Link {
    /// Where it was found.
    pub path: PathBuf,
    /// Open for reading, the first one also for writing if that was asked for.
    pub file: File,
    /// Its header; `None`: it is raw.
    pub header: Option<Header>,
}

impl Link {
    /// Its format.
    pub fn format(&self) -> Format {
        if self.header.is_some() { Format::Qcow2 } else { Format::Raw }
    }

    /// Bytes of the disk that it holds.
    ///
    /// # Errors
    /// The kernel's.
    pub fn size(&self) -> io::Result<u64> {
        match &self.header {
            Some(header) => Ok(header.size),
            None => FileStorage::new(self.file.try_clone()?)?.length(),
        }
    }
}

/// Why a file of an image cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}", .path.display())]
pub struct ChainError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: Error,
}

/// Opens `path`, which is of `format`, and its backing files, which lie below `directory`. The
/// first link is the image itself.
///
/// # Errors
/// A file that cannot be opened or used, and why.
pub fn open(path: &Path, format: Format, writable: bool, directory: &Path) -> Result<Vec<Link>, ChainError> {
    let top = OpenOptions::new()
        .read(true)
        .write(writable)
        .custom_flags(libc_flags())
        .open(path)
        .map_err(Error::from)
        .and_then(|file| Link::new(path.to_owned(), file, format));
    let top = top.map_err(|source| ChainError { path: path.to_owned(), source })?;
    below(top, directory)
}

/// Adds to `top` its backing files, which lie below `directory`.
///
/// # Errors
/// As for [`open`].
pub fn below(top: Link, directory: &Path) -> Result<Vec<Link>, ChainError> {
    let mut links = vec![top];
    loop {
        let last = links.last().expect("it begins with one");
        let Some(backing) = last.header.as_ref().and_then(|header| header.backing.as_ref()) else {
            return Ok(links);
        };
        let home = last.path.parent().unwrap_or(Path::new("."));
        let path = home.join(&backing.name);
        let link = match backing.format {
            None => Err(Error::Invalid(format!(
                "it is a backing file, and {} does not state its format: do that with qemu-img rebase -u -F",
                last.path.display()
            ))),
            Some(_) if links.len() >= MAX_FILES => Err(Error::Invalid(format!(
                "it is a backing file too many: at most {} are allowed",
                MAX_FILES - 1
            ))),
            Some(format) => {
                open_below(&path, directory).and_then(|file| Link::new(path.clone(), file, format))
            }
        };
        links.push(link.map_err(|source| ChainError { path, source })?);
    }
}

impl Link {
    /// The link of `file`, which was opened at `path` and is of `format`.
    ///
    /// # Errors
    /// It is no file or block device, or no image of that format.
    pub fn new(path: PathBuf, file: File, format: Format) -> Result<Self, Error> {
        let kind = file.metadata()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(Error::Invalid("it is neither a file nor a block device".to_owned()));
        }
        let header = match format {
            Format::Raw => None,
            Format::Qcow2 => Some(Header::read(&FileStorage::new(file.try_clone()?)?)?),
        };
        Ok(Self { path, file, header })
    }
}

/// Opens the file at `path` for reading, which lies below `directory`.
fn open_below(path: &Path, directory: &Path) -> Result<File, Error> {
    let outside = || {
        Error::Invalid(format!(
            "it is a backing file, and does not lie below {}, without symbolic links: only files there may be one",
            directory.display()
        ))
    };
    let directory = std::fs::canonicalize(directory)?;
    let (Some(home), Some(name)) = (path.parent(), path.file_name()) else { return Err(outside()) };
    let home = std::fs::canonicalize(if home.as_os_str().is_empty() { Path::new(".") } else { home })?;
    let Ok(within) = home.strip_prefix(&directory).map(|home| home.join(name)) else { return Err(outside()) };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let directory_file = File::open(&directory)?;
    match rustix::fs::openat2(directory_file.as_fd(), &within, flags, Mode::empty(), resolve) {
        Ok(file) => Ok(File::from(file)),
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::XDEV) => Err(outside()),
        Err(error) => Err(io::Error::from(error).into()),
    }
}

/// Opening waits for no pipe, and takes no terminal.
fn libc_flags() -> i32 {
    (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed()
}

/// The image of `files`, the first of which is written if `writable`. Each is of the format beside
/// it; all but the last name the next as their backing file.
///
/// # Errors
/// As for [`Qcow2::open`].
pub fn image(
    files: impl Iterator<Item = (File, Format)>,
    writable: bool,
) -> Result<Image<FileStorage>, Error> {
    let storages = files.map(|(file, format)| Ok((FileStorage::new(file)?, format)));
    stacked(storages.collect::<Result<_, Error>>()?, writable)
}

/// The same image of storage that is there already. Of an image that is only read, nothing but
/// [`Storage::read_at`] and [`Storage::length`] is called.
///
/// # Errors
/// As for [`Qcow2::open`].
pub fn stacked<S: Storage + fmt::Debug + 'static>(
    storages: Vec<(S, Format)>,
    writable: bool,
) -> Result<Image<S>, Error> {
    let mut below = None;
    let count = storages.len();
    for (number, (storage, format)) in storages.into_iter().rev().enumerate() {
        let is_top = number + 1 == count;
        below = Some(match (format, below.take()) {
            (Format::Raw, None) => Image::Raw(Raw::new(storage)?),
            (Format::Raw, Some(_)) => {
                return Err(Error::Invalid("a raw image has no backing file".to_owned()));
            }
            (Format::Qcow2, backing) => {
                let backing = backing.map(|image: Image<S>| Box::new(image) as Box<dyn Beneath>);
                Image::Qcow2(Box::new(Qcow2::open(storage, writable && is_top, backing)?))
            }
        });
    }
    below.ok_or_else(|| Error::Invalid("an image has one file at least".to_owned()))
}
