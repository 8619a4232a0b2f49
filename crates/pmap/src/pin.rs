use std::ops::Range;
use std::sync::Arc;

use plimsoll_units::{Bytes, CHUNK_PAGES};
use vm_memory::GuestAddress;

use crate::chunk::Backing;
use crate::error::Error;
use crate::host_range::PAGE;
use crate::iovec::IoVecs;
use crate::layout::{ChunkNo, Place};
use crate::mutation::Mutation;
use crate::page_set::{PageSet, Slot};
use crate::pmap::Pmap;
use crate::table::PageState;

/// What a device is about to do with guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Read it, or write parts of it: its content matters.
    Use,
    /// Write all of it. Pages that it covers whole, and that are compressed or swapped, are not brought back for that: until
    /// they are written they hold zeros.
    Overwrite,
}

/// Pages of guest memory that the kernel may read and write asynchronously: as long as it lives, no transition
/// touches them.
///
/// Drop it when the I/O has ended, not before. One that is never dropped keeps its pages from being given back, and
/// does no other harm.
#[derive(Debug)]
pub struct IoGuard {
    pmap: Arc<Pmap>,
    pinned: Vec<(ChunkNo, Slot, Slot)>,
    iovecs: IoVecs,
}

impl Pmap {
    /// Prepares ranges of guest memory, given as (address, length), for asynchronous I/O: locks their pages against
    /// transitions, makes them present, and returns where they are.
    ///
    /// Waits where pages are absent and the grant does not cover them, so the thread that serves the balloon must
    /// not call this for other devices: the balloon may be what brings the grant. Ranges may overlap; empty ones are
    /// left out of the result.
    ///
    /// # Errors
    /// [`Error::OutsideRam`] where a range is not wholly in one region of RAM; nothing is locked then.
    pub fn pin(self: &Arc<Self>, ranges: &[(GuestAddress, Bytes)], intent: Intent) -> Result<IoGuard, Error> {
        let ranges = ranges.iter().filter(|(_, length)| *length != Bytes::ZERO);
        let pieces: Vec<_> =
            ranges.map(|&(address, length)| self.piece(address.0, length.0)).collect::<Result<_, _>>()?;
        let mut guard = IoGuard {
            pmap: Arc::clone(self),
            pinned: Vec::new(),
            iovecs: IoVecs::new(&self.mapping, &pieces),
        };
        pieces.iter().for_each(|&(offset, len)| guard.lock_pages(offset, len));
        for (offset, len) in pieces {
            if intent == Intent::Overwrite {
                self.drop_content(offset.div_ceil(PAGE)..(offset + len) / PAGE);
            }
            (offset / PAGE..(offset + len).div_ceil(PAGE)).for_each(|page| self.mapping.touch(page * PAGE));
        }
        Ok(guard)
    }

    /// Gives up what pages have elsewhere: they are about to be written.
    fn drop_content(&self, pages: Range<usize>) {
        for (no, first, len) in by_chunk(pages) {
            let set = PageSet::span(first, len);
            let mut chunk = self.chunk(no);
            let before = chunk.tally();
            let Backing::Small(table) = &mut chunk.backing else { continue };
            let elsewhere = table.among(&set, PageState::is_elsewhere);
            let states: Vec<_> = elsewhere.iter().map(|slot| table.get(slot)).collect();
            table.set_all(&elsewhere, PageState::Absent);
            chunk.empty_if_uniform();
            self.record(before, &chunk);
            self.forget(states);
        }
        self.serve_waiting();
    }

    fn piece(&self, address: u64, length: u64) -> Result<(usize, usize), Error> {
        let offset = self.layout.offset(address, length);
        offset.zip(usize::try_from(length).ok()).ok_or(Error::OutsideRam { address, length })
    }
}

impl IoGuard {
    /// The pinned memory in the order it was asked for, for `preadv` and its kin or an io_uring. The slice stays
    /// where it is for as long as the guard lives, even if the guard is moved.
    pub fn iovecs(&self) -> &[libc::iovec] {
        self.iovecs.as_slice()
    }

    fn lock_pages(&mut self, offset: usize, len: usize) {
        for (no, slot, pages) in by_chunk(offset / PAGE..(offset + len).div_ceil(PAGE)) {
            if !self.pmap.mutations.has(Mutation::UnlockedIo) {
                self.pmap.chunk(no).start_io(slot, pages);
            }
            self.pinned.push((no, slot, pages));
        }
    }
}

/// Pages of the mapping, cut where a chunk ends, as (chunk, first page, length).
fn by_chunk(pages: Range<usize>) -> impl Iterator<Item = (ChunkNo, Slot, Slot)> {
    let (mut next, end) = (pages.start as u64, pages.end as u64);
    std::iter::from_fn(move || {
        let left = end.checked_sub(next).filter(|left| *left > 0)?;
        let Place { chunk: no, slot } = Place::of(next);
        let pages = (CHUNK_PAGES - u64::from(slot)).min(left);
        next += pages;
        #[expect(clippy::cast_possible_truncation, reason = "at most a chunk")]
        let pages = pages as Slot;
        Some((no, slot, pages))
    })
}

impl Drop for IoGuard {
    fn drop(&mut self) {
        for &(no, first, len) in &self.pinned {
            let mut chunk = self.pmap.chunk(no);
            chunk.end_io(first, len);
            self.pmap.let_frames_go(no, &mut chunk);
        }
    }
}
