//! A bounded cache of metadata: pieces of tables, by their place in the file.

use std::collections::BTreeMap;
use std::io;

use crate::storage::Storage;

/// Longest piece: what one read of a disk brings anyway.
const LONGEST: u64 = 4096;
/// Pieces that one change of the mapping may dirty.
const RESERVE: usize = 8;

/// Pieces of tables. Those that were changed stay until they are written back.
#[derive(Debug)]
pub(crate) struct Cache {
    pieces: BTreeMap<u64, Piece>,
    /// Bytes of a piece.
    length: u64,
    capacity: usize,
    clock: u64,
    dirty: usize,
}

#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    dirty: bool,
    used: u64,
}

impl Cache {
    /// A cache of `capacity` pieces of tables that take clusters of `cluster` bytes.
    pub(crate) fn new(capacity: usize, cluster: u64) -> Self {
        Self { pieces: BTreeMap::new(), length: cluster.min(LONGEST), capacity, clock: 0, dirty: 0 }
    }

    /// Whether another change of the mapping leaves it within its bound.
    pub(crate) fn has_room(&self) -> bool {
        self.dirty + RESERVE <= self.capacity
    }

    /// Whether it is within its bound.
    #[cfg(test)]
    pub(crate) fn is_bounded(&self) -> bool {
        self.pieces.len() <= self.capacity
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty > 0
    }

    /// The rest of the piece that `at` lies in, from there on.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn read(&mut self, storage: &impl Storage, at: u64) -> io::Result<&[u8]> {
        let within = index(at % self.length);
        Ok(&self.piece(storage, at - at % self.length)?.bytes[within..])
    }

    /// Changes the bytes at `at`, within one piece.
    ///
    /// # Errors
    /// The piece cannot be read.
    pub(crate) fn write(&mut self, storage: &impl Storage, at: u64, bytes: &[u8]) -> io::Result<()> {
        let within = index(at % self.length);
        let piece = self.piece(storage, at - at % self.length)?;
        piece.bytes[within..][..bytes.len()].copy_from_slice(bytes);
        let became_dirty = !std::mem::replace(&mut piece.dirty, true);
        self.dirty += usize::from(became_dirty);
        Ok(())
    }

    /// Writes what was changed.
    ///
    /// # Errors
    /// It cannot be written, and stays.
    pub(crate) fn write_back(&mut self, storage: &impl Storage) -> io::Result<()> {
        for (at, piece) in self.pieces.iter_mut().filter(|(_, piece)| piece.dirty) {
            storage.write_at(&piece.bytes, *at)?;
            piece.dirty = false;
            self.dirty -= 1;
        }
        Ok(())
    }

    fn piece(&mut self, storage: &impl Storage, at: u64) -> io::Result<&mut Piece> {
        self.clock += 1;
        if !self.pieces.contains_key(&at) {
            let mut bytes = vec![0; index(self.length)];
            storage.read_at(&mut bytes, at)?;
            self.evict();
            self.pieces.insert(at, Piece { bytes, dirty: false, used: 0 });
        }
        let piece = self.pieces.get_mut(&at).expect("it is there by now");
        piece.used = self.clock;
        Ok(piece)
    }

    /// Makes room for a piece, where one is clean.
    fn evict(&mut self) {
        if self.pieces.len() < self.capacity {
            return;
        }
        let clean = self.pieces.iter().filter(|(_, piece)| !piece.dirty);
        if let Some(at) = clean.min_by_key(|(_, piece)| piece.used).map(|(at, _)| *at) {
            self.pieces.remove(&at);
        }
    }
}

/// A number that counts bytes in memory.
pub(crate) fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("usize has 64 bits")
}
