//! Changes of a qcow2 image.

use std::io;

use plimsoll_sys::lock;

use crate::cache::index;
use crate::entry::{Mapping, Place, ZERO};
use crate::lock::{exclusive, shared};
use crate::metadata::Metadata;
use crate::qcow2::{Piece, Qcow2};
use crate::storage::{Storage, within};

impl<S: Storage> Qcow2<S> {
    /// Writes `bytes` to the guest's disk at `offset`. They are durable after the next
    /// [`flush`](Self::flush).
    ///
    /// # Errors
    /// They do not fit the disk, it is only read, no space is left, the metadata is damaged, or the
    /// kernel's. What was written of them is any part.
    pub fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        within(self.size(), offset, bytes.len())?;
        let mut left = bytes;
        for piece in Piece::all(offset, left.len() as u64, self.header.cluster_bits) {
            let (part, rest) = left.split_at(index(piece.length));
            if !self.write_in_place(piece, part)? {
                self.write_alone(piece, part)?;
            }
            left = rest;
        }
        Ok(())
    }

    /// Writes to a cluster that is allocated, beside other reads and writes. Returns whether it is.
    fn write_in_place(&self, piece: Piece, bytes: &[u8]) -> io::Result<bool> {
        // Others may write the rest of a block.
        let block = self.storage.block();
        if !piece.within.is_multiple_of(block) || !piece.length.is_multiple_of(block) {
            return Ok(false);
        }
        let _in_use = shared(&self.in_use);
        let mapping = {
            let mut metadata = lock(&self.metadata);
            metadata.is_writable()?;
            metadata.mapping(&self.storage, piece.cluster)?
        };
        match mapping {
            Mapping::Data(Place { at, owned: true }) => {
                self.storage.write_at(bytes, at + piece.within)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn write_alone(&self, piece: Piece, bytes: &[u8]) -> io::Result<()> {
        let _exclusive = exclusive(&self.in_use);
        let mut metadata = lock(&self.metadata);
        metadata.make_room(&self.storage)?;
        let before = metadata.mapping(&self.storage, piece.cluster)?;
        match before {
            Mapping::Data(Place { at, owned: true }) => self.storage.write_at(bytes, at + piece.within),
            Mapping::Zero(Some(place @ Place { owned: true, .. })) => {
                self.fill(before, place.at, false, piece, bytes)?;
                metadata.map(&self.storage, piece.cluster, place.entry())
            }
            _ => {
                let (at, is_fresh) = metadata.allocate(&self.storage)?;
                let entry = Place { at, owned: true }.entry();
                let done = self
                    .fill(before, at, is_fresh, piece, bytes)
                    .and_then(|()| metadata.map(&self.storage, piece.cluster, entry));
                if done.is_err() {
                    metadata.give_back(&self.storage, at)?;
                }
                done
            }
        }
    }

    /// Fills the cluster of the file at `at` with what `before` maps, changed by `bytes`. If it
    /// `is_fresh`, it reads as zeros.
    fn fill(&self, before: Mapping, at: u64, is_fresh: bool, piece: Piece, bytes: &[u8]) -> io::Result<()> {
        let is_whole = piece.length == self.header.cluster();
        if is_whole || (is_fresh && self.is_zero(before)) {
            return self.storage.write_at(bytes, at + piece.within);
        }
        let mut cluster = vec![0; index(self.header.cluster())];
        self.read_mapped(before, piece.cluster, 0, &mut cluster)?;
        cluster[index(piece.within)..][..bytes.len()].copy_from_slice(bytes);
        self.storage.write_at(&cluster, at)
    }

    /// Whether what is mapped so reads as zeros, as far as is known without reading it.
    fn is_zero(&self, mapping: Mapping) -> bool {
        match mapping {
            Mapping::Zero(_) => true,
            Mapping::Unallocated => self.backing.is_none(),
            Mapping::Data(_) | Mapping::Compressed { .. } => false,
        }
    }

    /// Frees the clusters that lie in `length` bytes from `offset`. What was there reads as zeros
    /// or as it was.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        within(self.size(), offset, index(length))?;
        lock(&self.metadata).is_writable()?;
        let Some(nothing) = self.nothing() else { return Ok(()) };
        for piece in Piece::all(offset, length, self.header.cluster_bits) {
            self.change_whole(piece, |metadata, before| match before {
                Mapping::Unallocated | Mapping::Zero(None) => Ok(()),
                _ => metadata.map(&self.storage, piece.cluster, nothing),
            })?;
        }
        Ok(())
    }

    /// Zeros `length` bytes from `offset`. If `unmap`, the clusters that lie in them are freed.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn zero(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        within(self.size(), offset, index(length))?;
        lock(&self.metadata).is_writable()?;
        let Some(nothing) = self.nothing() else { return self.write_zeros(offset, length) };
        for piece in Piece::all(offset, length, self.header.cluster_bits) {
            let is_done = self.change_whole(piece, |metadata, before| {
                let after = match before {
                    _ if self.is_zero(before) && !unmap => return Ok(()),
                    Mapping::Data(place @ Place { owned: true, .. })
                        if !unmap && self.header.version >= 3 =>
                    {
                        place.entry() | ZERO
                    }
                    Mapping::Unallocated if self.backing.is_none() => return Ok(()),
                    Mapping::Zero(None) => return Ok(()),
                    _ => nothing,
                };
                metadata.map(&self.storage, piece.cluster, after)
            })?;
            if !is_done {
                self.write_zeros((piece.cluster << self.header.cluster_bits) + piece.within, piece.length)?;
            }
        }
        Ok(())
    }

    /// The entry of a cluster that reads as zeros and takes no space; `None` if the format has
    /// no such entry (version 2, with a backing file).
    fn nothing(&self) -> Option<u64> {
        match (&self.backing, self.header.version) {
            (None, _) => Some(0),
            (Some(_), 3..) => Some(ZERO),
            (Some(_), _) => None,
        }
    }

    fn write_zeros(&self, offset: u64, length: u64) -> io::Result<()> {
        let zeros = vec![0; index(length.min(self.header.cluster()))];
        for piece in Piece::all(offset, length, self.header.cluster_bits) {
            let mapping = lock(&self.metadata).mapping(&self.storage, piece.cluster)?;
            if !self.is_zero(mapping) {
                let offset = (piece.cluster << self.header.cluster_bits) + piece.within;
                self.write(&zeros[..index(piece.length)], offset)?;
            }
        }
        Ok(())
    }

    /// Whether the piece is all that the disk has of its cluster.
    fn is_whole(&self, piece: Piece) -> bool {
        let start = piece.cluster << self.header.cluster_bits;
        piece.within == 0 && piece.length == self.header.cluster().min(self.size() - start)
    }

    /// Calls `change` with what the cluster of `piece` is mapped to, with the image locked
    /// exclusively, if the piece is all that the disk has of that cluster. Returns whether it is.
    fn change_whole(
        &self,
        piece: Piece,
        change: impl FnOnce(&mut Metadata, Mapping) -> io::Result<()>,
    ) -> io::Result<bool> {
        let _exclusive = exclusive(&self.in_use);
        // Decided with the lock held: a disk that grows meanwhile has more of its last cluster.
        if !self.is_whole(piece) {
            return Ok(false);
        }
        let mut metadata = lock(&self.metadata);
        metadata.make_room(&self.storage)?;
        let before = metadata.mapping(&self.storage, piece.cluster)?;
        change(&mut metadata, before)?;
        Ok(true)
    }

    /// Makes durable what was written.
    ///
    /// # Errors
    /// The kernel's: call it again. It goes on failing where the kernel has lost what was written.
    pub fn flush(&self) -> io::Result<()> {
        let _exclusive = exclusive(&self.in_use);
        lock(&self.metadata).settle(&self.storage)
    }
}
