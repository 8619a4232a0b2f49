//! The compression store: packed pages in little memory, bounded, and given back as they go.
//!
//! A page that shrinks to half or less (fn@pack) becomes a *record* at the end of a *log* of 64 KiB
//! segments. An *index* of one word a handle says where each record is, so that records can move.
//! Records know their neighbours in age: the oldest goes to swap first.
//!
//! # Bounds
//!
//! | what | bound | why |
//! |---|---|---|
//! | machine pages | `most`, at every moment | cleaning makes room before it takes room |
//! | fragmentation | 15 % of more than a few dozen pages | whenever an eighth is waste, the worst segment is cleaned |
//! | bookkeeping | 22 bytes a page stored, 8 for rounding | `record.rs`, `index.rs` |
//! | one call | one segment copied | segments worth cleaning are kept in order |
//!
//! Bookkeeping in records and index is memory of the store, and charged. Beside it are 64 KiB for
//! cleaning and 40 bytes a segment.
//!
//! The bound on fragmentation has one exception. Handles do not move, so a page of the index stays
//! while one of its 1024 handles is in use. A store that has shrunk to less than a twentieth of
//! what it was, by removals all over the place, may waste more than 15 % of the little that is
//! left.
//!
//! # Alternatives not taken
//!
//! - *Size classes* (as in zsmalloc): filling a hole with the class's last record needs no
//!   cleaning, but each class has a page partly used, which is too much in the store of a small VM,
//!   and each record is rounded up.
//! - *Segments from the allocator*: it keeps for itself what was freed.
//! - *The index's words in the page tables of the chunks*: cleaning would need the locks of all
//!   chunks.

mod index;
mod log;
mod pack;
mod record;
mod reserve;

#[cfg(test)]
mod tests;

use std::io;

use plimsoll_units::Pages;

use self::index::Index;
use self::log::{Log, SEGMENT};
use self::record::{Header, NONE, SMALLEST, UNIT};
use crate::address::PAGE;

pub(crate) use self::pack::{MOST_PACKED, pack};

/// Most pages of a store: what a place of 31 bits reaches, less two segments. That is a tenth of a
/// VM of 320 GiB; a larger VM has no larger store.
const LARGEST_STORE: usize = (UNIT << 31) / PAGE - 2 * SEGMENT / PAGE;
/// One byte in this many may be waste before a segment is cleaned. With the page that index and
/// open segment each use in part, fragmentation stays below 15 %. A larger number makes cleaning
/// copy more for each byte that it frees.
const WASTE: usize = 8;

/// A packed page in the store. Valid until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Handle(u32);

/// Packed pages of one VM.
#[derive(Debug)]
pub(crate) struct Store {
    most: usize,
    log: Log,
    index: Index,
    oldest: u32,
    youngest: u32,
}

impl Store {
    /// Makes an empty store that will use at most `most` machine pages. Reserves addresses; uses no
    /// memory yet.
    pub(crate) fn new(most: Pages) -> io::Result<Self> {
        let most = usize::try_from(most.0).unwrap_or(LARGEST_STORE).min(LARGEST_STORE);
        // One segment is open, one being cleaned, and all others are full.
        let segments = most.div_ceil(SEGMENT / PAGE) + 2;
        let index = Index::new(segments * (SEGMENT / SMALLEST))?;
        Ok(Self { most, log: Log::new(segments)?, index, oldest: NONE, youngest: NONE })
    }

    /// Stores what [`fn@pack`] made of page `owner`. `None` where the store would exceed its bound,
    /// or where `owner` is beyond 2^32 pages.
    pub(crate) fn insert(&mut self, owner: u64, packed: &[u8]) -> Option<Handle> {
        let owner = u32::try_from(owner).ok()?;
        let len =
            u16::try_from(packed.len()).ok().filter(|len| (1..=MOST_PACKED).contains(&usize::from(*len)))?;
        let size = record::size(usize::from(len));
        if self.occupied() + self.log.need(size)? + self.index.need(1) > self.most {
            return None;
        }
        let header = Header { handle: NONE, owner, older: self.youngest, younger: NONE, len };
        let place = self.log.append(&header, packed);
        let handle = self.index.add(place);
        self.log.set_header(place, &Header { handle, ..header });
        self.link(header.older, handle, |older| &mut older.younger);
        self.youngest = handle;
        if self.oldest == NONE {
            self.oldest = handle;
        }
        Some(Handle(handle))
    }

    /// Unpacks an entry.
    pub(crate) fn read(&self, handle: Handle, page: &mut [u8; PAGE]) {
        pack::unpack(self.log.packed(self.place(handle.0)), page);
    }

    /// Removes an entry. Other entries may move; handles stay valid.
    pub(crate) fn remove(&mut self, handle: Handle) {
        let place = self.place(handle.0);
        let Header { older, younger, .. } = self.log.header(place);
        self.link(older, younger, |older| &mut older.younger);
        self.link(younger, older, |younger| &mut younger.older);
        if self.oldest == handle.0 {
            self.oldest = younger;
        }
        if self.youngest == handle.0 {
            self.youngest = older;
        }
        self.log.remove(place);
        self.index.free(handle.0);
        if self.waste() > self.occupied() * PAGE / WASTE {
            self.log.clean(&mut self.index);
        }
        self.log.trim();
    }

    /// The entry that was inserted before all others that are there, and its owner.
    pub(crate) fn oldest(&self) -> Option<(Handle, u64)> {
        let oldest = (self.oldest != NONE).then_some(self.oldest)?;
        Some((Handle(oldest), self.log.header(self.place(oldest)).owner.into()))
    }

    /// Machine pages that the store uses. Changes in [`Self::insert`], [`Self::remove`] and
    /// [`Self::clear`] only.
    pub(crate) fn pages(&self) -> Pages {
        Pages(self.occupied() as u64)
    }

    /// Whether `count` more entries fit for certain, however little they shrank.
    pub(crate) fn room_for(&self, count: usize) -> bool {
        let need = self.log.need_for(count).map(|log| log + self.index.need(count));
        need.is_some_and(|need| self.occupied() + need <= self.most)
    }

    /// Removes all entries.
    pub(crate) fn clear(&mut self) {
        self.log.clear();
        self.index.clear();
        (self.oldest, self.youngest) = (NONE, NONE);
    }

    fn occupied(&self) -> usize {
        self.log.pages() + self.index.pages()
    }

    /// Bytes of memory in use for nothing.
    fn waste(&self) -> usize {
        self.log.waste() + self.index.pages() * PAGE - self.index.live_bytes()
    }

    fn place(&self, handle: u32) -> u32 {
        self.index.get(handle).expect("a handle is used until its entry is removed, and not afterwards")
    }

    /// Makes one neighbour of entry `from`, if that exists, `to`.
    fn link(&mut self, from: u32, to: u32, neighbour: impl FnOnce(&mut Header) -> &mut u32) {
        if from == NONE {
            return;
        }
        let place = self.place(from);
        let mut header = self.log.header(place);
        *neighbour(&mut header) = to;
        self.log.set_header(place, &header);
    }
}
