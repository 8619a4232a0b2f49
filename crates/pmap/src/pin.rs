use std::sync::Arc;

use plimsoll_units::{Bytes, CHUNK_PAGES, PAGE_SIZE};
use vm_memory::GuestAddress;

use crate::error::Error;
use crate::host_range::PAGE;
use crate::iovec::IoVecs;
use crate::layout::{ChunkNo, Place};
use crate::mutation::Mutation;
use crate::page_set::Slot;
use crate::pmap::Pmap;

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
    pub fn pin(self: &Arc<Self>, ranges: &[(GuestAddress, Bytes)]) -> Result<IoGuard, Error> {
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
            (offset / PAGE..(offset + len).div_ceil(PAGE)).for_each(|page| self.mapping.touch(page * PAGE));
        }
        Ok(guard)
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
        let (mut next, end) = (offset as u64 / PAGE_SIZE, (offset as u64 + len as u64).div_ceil(PAGE_SIZE));
        while next < end {
            let Place { chunk: no, slot } = Place::of(next);
            let pages = (CHUNK_PAGES - u64::from(slot)).min(end - next);
            next += pages;
            #[expect(clippy::cast_possible_truncation, reason = "at most a chunk")]
            let pages = pages as Slot;
            if !self.pmap.mutations.has(Mutation::UnlockedIo) {
                self.pmap.chunk(no).start_io(slot, pages);
            }
            self.pinned.push((no, slot, pages));
        }
    }
}

impl Drop for IoGuard {
    fn drop(&mut self) {
        for &(no, first, len) in &self.pinned {
            self.pmap.chunk(no).end_io(first, len);
        }
    }
}
