//! An image of either format.

use std::fmt;
use std::io;

use crate::beneath::Beneath;
use crate::cache::index;
use crate::error::Error;
use crate::qcow2::Qcow2;
use crate::storage::{Storage, within};

/// Zeros that are written at a time.
const ZEROS: u64 = 64 << 10;

/// A disk's content in storage of type `S`. Several threads may use it at the same time; those that
/// write the same bytes at once leave any of what they wrote.
#[derive(Debug)]
pub enum Image<S> {
    /// See [`Format::Raw`](crate::Format::Raw).
    Raw(Raw<S>),
    /// See [`Format::Qcow2`](crate::Format::Qcow2).
    Qcow2(Box<Qcow2<S>>),
}

/// A raw image.
#[derive(Debug)]
pub struct Raw<S> {
    storage: S,
    size: u64,
}

impl<S: Storage> Raw<S> {
    /// The raw image in `storage`.
    ///
    /// # Errors
    /// Its length cannot be found.
    pub fn new(storage: S) -> io::Result<Self> {
        let size = storage.length()?;
        Ok(Self { storage, size })
    }

    /// What it lies in.
    pub fn storage(&self) -> &S {
        &self.storage
    }
}

impl<S: Storage> Image<S> {
    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        match self {
            Self::Raw(raw) => raw.size,
            Self::Qcow2(image) => image.size(),
        }
    }

    /// Reads `bytes` from `offset` on.
    ///
    /// # Errors
    /// They are not all on the disk, the metadata is damaged, or the kernel's.
    pub fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Raw(raw) => {
                within(raw.size, offset, bytes.len())?;
                raw.storage.read_at(bytes, offset)
            }
            Self::Qcow2(image) => image.read(bytes, offset),
        }
    }

    /// Writes `bytes` at `offset`. They are durable after the next [`flush`](Self::flush).
    ///
    /// # Errors
    /// As for [`Qcow2::write`].
    pub fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Raw(raw) => {
                within(raw.size, offset, bytes.len())?;
                raw.storage.write_at(bytes, offset)
            }
            Self::Qcow2(image) => image.write(bytes, offset),
        }
    }

    /// Gives the space of `length` bytes from `offset` back. They read as zeros or as they were.
    ///
    /// # Errors
    /// As for [`Qcow2::write`].
    pub fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        match self {
            Self::Raw(raw) => {
                within(raw.size, offset, index(length))?;
                // Content that was discarded is undefined, so where that fails it is what it was.
                raw.storage.free(offset, length).ok();
                Ok(())
            }
            Self::Qcow2(image) => image.discard(offset, length),
        }
    }

    /// Zeros `length` bytes from `offset`. If `unmap`, their space is given back.
    ///
    /// # Errors
    /// As for [`Qcow2::write`].
    pub fn zero(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        match self {
            Self::Raw(raw) => {
                within(raw.size, offset, index(length))?;
                if unmap && raw.storage.free(offset, length).unwrap_or(false) {
                    return Ok(());
                }
                let zeros = vec![0; index(length.min(ZEROS))];
                (0..length).step_by(zeros.len().max(1)).try_for_each(|done| {
                    let count = index((length - done).min(ZEROS));
                    raw.storage.write_at(&zeros[..count], offset + done)
                })
            }
            Self::Qcow2(image) => image.zero(offset, length, unmap),
        }
    }

    /// Makes the disk `size` bytes long, and that durable. What is new reads as zeros.
    ///
    /// # Errors
    /// As for [`Qcow2::grow`]; a raw image is as long as its file.
    pub fn grow(&self, size: u64) -> Result<(), Error> {
        match self {
            Self::Raw(_) => Err(Error::Invalid("a raw image is as long as its file".to_owned())),
            Self::Qcow2(image) => image.grow(size),
        }
    }

    /// Makes durable what was written.
    ///
    /// # Errors
    /// The kernel's: call it again. It goes on failing where the kernel has lost what was written.
    pub fn flush(&self) -> io::Result<()> {
        match self {
            Self::Raw(raw) => raw.storage.sync(),
            Self::Qcow2(image) => image.flush(),
        }
    }
}

impl<S: Storage + fmt::Debug + 'static> Beneath for Image<S> {
    fn size(&self) -> u64 {
        self.size()
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.read(bytes, offset)
    }
}
