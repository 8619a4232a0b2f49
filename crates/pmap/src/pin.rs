use std::ops::Range;

use plimsoll_units::{Bytes, CHUNK_PAGES, Pages};
use vm_memory::GuestAddress;

use crate::chunk::Backing;
use crate::error::Error;
use crate::host_range::PAGE;
use crate::iovec::IoVecs;
use crate::layout::{ChunkNo, Place};
use crate::mutation::Mutation;
use crate::page_set::{PageSet, Slot};
use crate::pin_budget::PinPermit;
use crate::pmap::Pmap;
use crate::sync::Arc;
use crate::table::PageState;

/// Fewest pages that devices may pin together, however small the grant: a segment of a disk's
/// request (128 KiB). With fewer a VM with a small grant would read its disk page by page.
const LEAST_PINNED: Pages = Pages(32);

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
    _permit: PinPermit,
}

/// A wish to pin ranges of guest memory. See [`Pmap::pin_request`].
#[derive(Debug)]
pub struct PinRequest {
    pmap: Arc<Pmap>,
    /// As (offset in the mapping, length).
    pieces: Vec<(usize, usize)>,
    intent: Intent,
    /// The pages are locked and asked for, and not all of them are there yet.
    begun: Option<IoGuard>,
}

impl Pmap {
    /// A request to prepare ranges of guest memory, given as (address, length), for asynchronous
    /// I/O. It locks nothing yet. Ranges may overlap; empty ones are left out of the result.
    ///
    /// # Errors
    /// [`Error::OutsideRam`] where a range is not wholly in one region of RAM.
    pub fn pin_request(
        self: &Arc<Self>,
        ranges: &[(GuestAddress, Bytes)],
        intent: Intent,
    ) -> Result<PinRequest, Error> {
        let ranges = ranges.iter().filter(|(_, length)| *length != Bytes::ZERO);
        let pieces =
            ranges.map(|&(address, length)| self.piece(address.0, length.0)).collect::<Result<_, _>>()?;
        Ok(PinRequest { pmap: Arc::clone(self), pieces, intent, begun: None })
    }

    /// Pins ranges of guest memory: [`Pmap::pin_request`] and [`PinRequest::wait`] in one.
    ///
    /// # Errors
    /// [`Error::OutsideRam`] where a range is not wholly in one region of RAM; nothing is locked then.
    pub fn pin(self: &Arc<Self>, ranges: &[(GuestAddress, Bytes)], intent: Intent) -> Result<IoGuard, Error> {
        Ok(self.pin_request(ranges, intent)?.wait())
    }

    /// How many pages devices may pin together: a quarter of the grant, so that three quarters can
    /// make room for what a device waits for. A single larger request is pinned while it is alone.
    pub fn most_pinned(&self) -> Pages {
        Pages(self.account().grant().0 / 4).max(LEAST_PINNED)
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

    /// The pages of a run that a device cannot use yet. None of them goes missing again while they
    /// are pinned.
    fn missing(&self, (no, first, len): (ChunkNo, Slot, Slot)) -> PageSet {
        let run = PageSet::span(first, len);
        match &self.chunk(no).backing {
            Backing::Large => PageSet::EMPTY,
            Backing::Small(table) => table.among(&run, |state| state != PageState::Private),
            Backing::Empty { .. } | Backing::Aside(_) => run,
        }
    }

    fn piece(&self, address: u64, length: u64) -> Result<(usize, usize), Error> {
        let offset = self.layout.offset(address, length);
        offset.zip(usize::try_from(length).ok()).ok_or(Error::OutsideRam { address, length })
    }
}

impl PinRequest {
    /// Whether its pages are locked. They count against [`Pmap::most_pinned`] from then on.
    pub fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Pins the pages if that takes no waiting. Otherwise the request comes back: it has
    /// [begun](Self::has_begun), and its pages are on their way; or devices have pinned as much as
    /// they may. Then try again, or [`wait`](Self::wait).
    ///
    /// # Errors
    /// The request, where it has to wait.
    pub fn try_pin(mut self) -> Result<IoGuard, Self> {
        let guard = match self.begun.take() {
            Some(guard) => guard,
            None => match self.pmap.pins.try_take(self.pages(), self.pmap.most_pinned()) {
                Some(permit) => self.begin(permit),
                None => return Err(self),
            },
        };
        if guard.pinned.iter().any(|&run| !guard.pmap.missing(run).is_empty()) {
            return Err(Self { begun: Some(guard), ..self });
        }
        self.touch();
        Ok(guard)
    }

    /// Pins the pages. Waits until other pins leave room, and for pages that are absent and that
    /// the grant does not cover.
    ///
    /// The thread that serves the balloon must not call this for other devices: the balloon may be
    /// what brings the grant. Nor must a thread that other pins wait for to be dropped.
    pub fn wait(mut self) -> IoGuard {
        let guard = self.begun.take().unwrap_or_else(|| {
            let permit = self.pmap.pins.take(self.pages(), || self.pmap.most_pinned());
            self.begin(permit)
        });
        self.touch();
        guard
    }

    /// Locks the pages against transitions, and asks for all that are missing at once: the grant
    /// that they need is known as a whole, and the swap reads them side by side.
    fn begin(&self, permit: PinPermit) -> IoGuard {
        let mut guard = IoGuard {
            pmap: Arc::clone(&self.pmap),
            pinned: Vec::new(),
            iovecs: IoVecs::new(&self.pmap.mapping, &self.pieces),
            _permit: permit,
        };
        self.pieces.iter().for_each(|&(offset, len)| guard.lock_pages(offset, len));
        if self.intent == Intent::Overwrite {
            for (offset, len) in &self.pieces {
                self.pmap.drop_content(offset.div_ceil(PAGE)..(offset + len) / PAGE);
            }
        }
        for &(no, first, len) in &guard.pinned {
            let missing = self.pmap.missing((no, first, len));
            missing.iter().for_each(|slot| self.pmap.demand(Place { chunk: no, slot }));
        }
        guard
    }

    /// Touches every page, so that the kernel has it in the page table. Waits for those that are
    /// not there.
    fn touch(&self) {
        for (offset, len) in &self.pieces {
            (offset / PAGE..(offset + len).div_ceil(PAGE))
                .for_each(|page| self.pmap.mapping.touch(page * PAGE));
        }
    }

    /// The pages that it pins; those of several ranges count several times.
    fn pages(&self) -> Pages {
        let pages = |&(offset, len): &(usize, usize)| ((offset + len).div_ceil(PAGE) - offset / PAGE) as u64;
        Pages(self.pieces.iter().map(pages).sum())
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
