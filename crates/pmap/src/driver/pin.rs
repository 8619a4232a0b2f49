use std::ops::Range;

use plimsoll_sys::iovec::IoVec;
use plimsoll_units::{Bytes, Pages};
use vm_memory::GuestAddress;

use super::faults::demand;
use super::service::serve_waiting;
use crate::account::{PinBudget, PinPermit};
use crate::address::{ChunkNo, PAGE, PageSet, Place, Slot, pages_by_chunk};
use crate::error::Error;
use crate::memory::{IoVecs, offset};
use crate::page::{Backing, PageState};
use crate::sync::Arc;
use crate::transition::Vm;
use crate::transition::frames::return_frames;
use crate::transition::release::drop_content;

/// Pages that devices may pin together in any case, however small the grant: a segment of a disk's
/// request (128 KiB). With fewer, a VM with a small grant would read its disk page by page.
const LEAST_PINNED: Pages = Pages(32);

/// What a device is about to do with guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Read it, or write parts of it: its content matters.
    Use,
    /// Write all of it. Pages that it covers wholly and that are compressed or swapped are not
    /// brought back: they hold zeros until they are written.
    Overwrite,
}

/// Pages of guest memory that the kernel may read and write asynchronously: while this lives, no
/// transition touches them.
///
/// Drop it when the I/O has ended, not before. If it is never dropped, its pages cannot be given
/// back; it does no other harm.
#[derive(Debug)]
pub struct IoGuard {
    vm: Arc<Vm>,
    pinned: Vec<(ChunkNo, Slot, Slot)>,
    iovecs: IoVecs,
    _permit: PinPermit,
}

/// A request to pin ranges of guest memory. See [`Pmap::pin_request`](crate::Pmap::pin_request).
#[derive(Debug)]
pub struct PinRequest {
    pins: Arc<Pins>,
    /// As (offset in the mapping, length).
    pieces: Vec<(usize, usize)>,
    intent: Intent,
    /// The pages are locked and asked for, and some are still missing.
    begun: Option<IoGuard>,
}

/// The memory that devices pin, and how much of it there may be.
#[derive(Debug)]
pub(crate) struct Pins {
    vm: Arc<Vm>,
    budget: Arc<PinBudget>,
}

impl Pins {
    pub(crate) fn new(vm: Arc<Vm>) -> Self {
        Self { vm, budget: Arc::default() }
    }

    /// A request to pin ranges of guest memory.
    pub(crate) fn request(
        self: &Arc<Self>,
        ranges: &[(GuestAddress, Bytes)],
        intent: Intent,
    ) -> Result<PinRequest, Error> {
        let ranges = ranges.iter().filter(|(_, length)| *length != Bytes::ZERO);
        let pieces =
            ranges.map(|&(address, length)| self.piece(address.0, length.0)).collect::<Result<_, _>>()?;
        Ok(PinRequest { pins: Arc::clone(self), pieces, intent, begun: None })
    }

    /// How many pages devices may pin together.
    pub(crate) fn most(&self) -> Pages {
        Pages(self.vm.account().grant().0 / 4).max(LEAST_PINNED)
    }

    fn piece(&self, address: u64, length: u64) -> Result<(usize, usize), Error> {
        let offset = self.vm.memory.layout().offset(address, length);
        offset.zip(usize::try_from(length).ok()).ok_or(Error::OutsideRam { address, length })
    }
}

impl PinRequest {
    /// Whether its pages are locked. They count against
    /// [`Pmap::most_pinned`](crate::Pmap::most_pinned) from then on.
    pub fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Pins the pages if that needs no waiting. Otherwise the request comes back: either it has
    /// [begun](Self::has_begun) and its pages are on their way, or devices have pinned as much as
    /// they may. Then try again, or [`wait`](Self::wait).
    ///
    /// # Errors
    /// The request, if it has to wait.
    pub fn try_pin(mut self) -> Result<IoGuard, Self> {
        let guard = match self.begun.take() {
            Some(guard) => guard,
            None => match self.pins.budget.try_take(self.pages(), self.pins.most()) {
                Some(permit) => self.begin(permit),
                None => return Err(self),
            },
        };
        if guard.pinned.iter().any(|&run| !missing(&guard.vm, run).is_empty()) {
            return Err(Self { begun: Some(guard), ..self });
        }
        self.touch();
        Ok(guard)
    }

    /// Pins the pages. Waits until other pins leave room, and for absent pages that the grant does
    /// not cover.
    ///
    /// The thread that serves the balloon must not call this for other devices: the balloon may be
    /// what brings the grant. Nor must a thread that drops the pins that others wait for.
    pub fn wait(mut self) -> IoGuard {
        let guard = self.begun.take().unwrap_or_else(|| {
            let permit = self.pins.budget.take(self.pages(), || self.pins.most());
            self.begin(permit)
        });
        self.touch();
        guard
    }

    /// Locks the pages against transitions, and asks for all missing ones at once: the source then
    /// hears of all that they need, and the swap reads them side by side.
    fn begin(&self, permit: PinPermit) -> IoGuard {
        let vm = &self.pins.vm;
        let mut guard = IoGuard {
            vm: Arc::clone(vm),
            pinned: Vec::new(),
            iovecs: vm.memory.io_vecs(&self.pieces),
            _permit: permit,
        };
        self.pieces.iter().for_each(|&(offset, len)| guard.lock_pages(offset, len));
        if self.intent == Intent::Overwrite {
            for (offset, len) in &self.pieces {
                drop_contents(vm, offset.div_ceil(PAGE)..(offset + len) / PAGE);
            }
        }
        for &(no, first, len) in &guard.pinned {
            let missing = missing(vm, (no, first, len));
            missing.iter().for_each(|slot| demand(vm, Place { chunk: no, slot }));
        }
        guard
    }

    /// Touches every page, so that the kernel has it in the page table. Waits for missing pages.
    fn touch(&self) {
        for (offset, len) in &self.pieces {
            (offset / PAGE..(offset + len).div_ceil(PAGE))
                .for_each(|page| self.pins.vm.memory.touch(page * PAGE));
        }
    }

    /// The number of pages that it pins; a page of several ranges counts several times.
    fn pages(&self) -> Pages {
        let pages = |&(offset, len): &(usize, usize)| ((offset + len).div_ceil(PAGE) - offset / PAGE) as u64;
        Pages(self.pieces.iter().map(pages).sum())
    }
}

impl IoGuard {
    /// The pinned memory, in the order in which it was asked for. The slice stays where it is while
    /// the guard lives, even if the guard is moved.
    pub(crate) fn pieces(&self) -> &[IoVec] {
        self.iovecs.as_slice()
    }

    /// Unlocks the pages although they are still used.
    #[cfg(test)]
    pub(crate) fn unlock(&mut self) {
        for (no, first, len) in std::mem::take(&mut self.pinned) {
            self.vm.chunk(no).end_io(first, len);
        }
    }

    fn lock_pages(&mut self, offset: usize, len: usize) {
        for (no, slot, pages) in pages_by_chunk(offset / PAGE..(offset + len).div_ceil(PAGE)) {
            self.vm.chunk(no).start_io(slot, pages);
            self.pinned.push((no, slot, pages));
        }
    }
}

impl Drop for IoGuard {
    fn drop(&mut self) {
        for &(no, first, len) in &self.pinned {
            let mut chunk = self.vm.chunk(no);
            chunk.end_io(first, len);
            return_frames(&self.vm, no, &mut chunk);
        }
    }
}

/// Forgets the content that pages have elsewhere, because they are about to be overwritten.
fn drop_contents(vm: &Vm, pages: Range<usize>) {
    for (no, first, len) in pages_by_chunk(pages) {
        drop_content(vm, no, &PageSet::span(first, len));
    }
    serve_waiting(vm);
}

/// The pages of a run that a device cannot use yet. No page goes missing again while it is pinned.
///
/// Those of a large chunk are touched here, under the chunk's lock: the kernel serves them unasked
/// as long as the chunk is large, and what is there stays when it is broken up.
fn missing(vm: &Vm, (no, first, len): (ChunkNo, Slot, Slot)) -> PageSet {
    let run = PageSet::span(first, len);
    let chunk = vm.chunk(no);
    match &chunk.backing {
        Backing::Large => {
            run.iter().for_each(|slot| vm.memory.touch(offset(Place { chunk: no, slot })));
            PageSet::EMPTY
        }
        Backing::Small(table) => table.among(&run, |state| state != PageState::Private),
        Backing::Empty { .. } | Backing::Aside(_) => run,
    }
}
