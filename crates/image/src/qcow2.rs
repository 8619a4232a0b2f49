//! One qcow2 file with what it is a change of: opening and reading. `change.rs` writes.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};

use plimsoll_sys::lock;

use crate::beneath::Beneath;
use crate::cache::index;
use crate::entry::{Mapping, Place};
use crate::error::{Error, damaged};
use crate::header::{AUTOCLEAR_AT, Backing, Header};
use crate::metadata::Metadata;
use crate::storage::{Storage, within};

/// A qcow2 image that is in use. Several threads may read it, and write what is allocated, side by
/// side; what changes the mapping runs alone.
#[derive(Debug)]
pub struct Qcow2<S> {
    pub(crate) storage: S,
    pub(crate) header: Header,
    /// Bytes of the guest's disk now.
    pub(crate) size: AtomicU64,
    pub(crate) backing: Option<Box<dyn Beneath>>,
    /// Held shared while data moves, so that no cluster changes its use meanwhile; taken before
    /// `metadata`.
    pub(crate) in_use: RwLock<()>,
    pub(crate) metadata: Mutex<Metadata>,
    /// The compressed cluster that was read last, by its place: guests read in smaller pieces.
    decompressed: Mutex<Option<(u64, Vec<u8>)>>,
}

impl<S: Storage> Qcow2<S> {
    /// Opens the image in `storage`, to read it, or if `writable` to write it too. `backing` is
    /// what it is a change of, opened only to be read.
    ///
    /// # Errors
    /// Its header is refused, it may not be written, or `backing` is missing or superfluous.
    pub fn open(storage: S, writable: bool, backing: Option<Box<dyn Beneath>>) -> Result<Self, Error> {
        let header = Header::read(&storage)?;
        match (&header.backing, &backing) {
            (Some(Backing { name, .. }), None) => {
                return Err(Error::Invalid(format!("its backing file {name} is not given")));
            }
            (None, Some(_)) => {
                return Err(Error::Invalid("it has no backing file, and one is given".to_owned()));
            }
            _ => {}
        }
        if writable {
            header.may_be_written()?;
            clear_features(&storage, &header)?;
        }
        let metadata = Metadata::read(&storage, &header, writable)?;
        Ok(Self {
            storage,
            size: AtomicU64::new(header.size),
            header,
            backing,
            in_use: RwLock::default(),
            metadata: Mutex::new(metadata),
            decompressed: Mutex::default(),
        })
    }

    /// Its header, as it was when the image was opened.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of the guest's disk.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::SeqCst)
    }

    /// Reads `bytes` of the guest's disk from `offset` on.
    ///
    /// # Errors
    /// They are not all on the disk, the metadata is damaged, or the kernel's.
    pub fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        within(self.size(), offset, bytes.len())?;
        let _in_use = crate::lock::shared(&self.in_use);
        let mut left = bytes;
        for piece in Piece::all(offset, left.len() as u64, self.header.cluster_bits) {
            let (part, rest) = left.split_at_mut(index(piece.length));
            let mapping = lock(&self.metadata).mapping(&self.storage, piece.cluster)?;
            self.read_mapped(mapping, piece.cluster, piece.within, part)?;
            left = rest;
        }
        Ok(())
    }

    /// Reads from `within` on in `cluster` of the guest's disk, which is mapped so.
    pub(crate) fn read_mapped(
        &self,
        mapping: Mapping,
        cluster: u64,
        within: u64,
        bytes: &mut [u8],
    ) -> io::Result<()> {
        match (mapping, &self.backing) {
            (Mapping::Data(Place { at, .. }), _) => self.storage.read_at(bytes, at + within),
            (Mapping::Unallocated, Some(backing)) => {
                backing.read_padded(bytes, (cluster << self.header.cluster_bits) + within)
            }
            (Mapping::Zero(_), _) | (Mapping::Unallocated, None) => {
                bytes.fill(0);
                Ok(())
            }
            (Mapping::Compressed { at, length }, _) => self.read_compressed(at, length, within, bytes),
        }
    }

    fn read_compressed(&self, at: u64, length: u64, within: u64, bytes: &mut [u8]) -> io::Result<()> {
        // Nothing that is compressed is ever written, so a place has one content as long as it is
        // mapped; and what is mapped there later is not compressed.
        let mut last = lock(&self.decompressed);
        if last.as_ref().is_none_or(|(place, _)| *place != at) {
            // Not taken for the content of this place if that cannot be decompressed.
            let mut cluster =
                last.take().map_or_else(|| vec![0; index(self.header.cluster())], |(_, cluster)| cluster);
            let mut compressed = vec![0; index(length)];
            self.storage.read_at(&mut compressed, at)?;
            self.header.compression.decompress(&compressed, &mut cluster)?;
            *last = Some((at, cluster));
        }
        let (_, cluster) = last.as_ref().ok_or_else(|| damaged("no cluster"))?;
        bytes.copy_from_slice(&cluster[index(within)..][..bytes.len()]);
        Ok(())
    }
}

/// Clears the features that a program which does not know them must clear: bitmaps of changes are
/// not kept here.
fn clear_features(storage: &impl Storage, header: &Header) -> io::Result<()> {
    if header.autoclear == 0 {
        return Ok(());
    }
    storage.write_at(&[0; 8], AUTOCLEAR_AT)?;
    storage.sync()
}

/// The part of a range that lies in one cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) cluster: u64,
    /// Where in the cluster it begins.
    pub(crate) within: u64,
    pub(crate) length: u64,
}

impl Piece {
    /// The pieces of `length` bytes from `offset`.
    pub(crate) fn all(offset: u64, length: u64, cluster_bits: u32) -> impl Iterator<Item = Self> {
        let end = offset + length;
        let mut at = offset;
        std::iter::from_fn(move || {
            let (cluster, within) = (at >> cluster_bits, at & ((1 << cluster_bits) - 1));
            let length = ((1 << cluster_bits) - within).min(end - at);
            at += length;
            (length > 0).then_some(Self { cluster, within, length })
        })
    }
}
