//! Taking pages that the guest does not give.

#[cfg(all(test, not(feature = "model-check")))]
mod tests;

use std::time::Duration;

use plimsoll_units::Pages;

use super::scanner::Scanner;
use super::service::{serve_freed, serve_waiting};
use crate::address::{ChunkNo, PageSet, Place, PpnRange, SLOTS};
use crate::content::Swap;
use crate::lock::{EVICTION, Lock};
use crate::page::{Activity, Backing, Chunk, PageState};
use crate::sync::Arc;
use crate::transition::Vm;
use crate::transition::evict::{BATCH, Choice, evict_batch, victims_in};
use crate::transition::promote::make_all_dirty;
use crate::transition::spill::spill;

/// Chunks that are compared to find one that is used little. More come closer to the least used
/// one, for the price of a lock each.
const CANDIDATES: usize = 4;
/// Most chunks that yield nothing, one after the other, before eviction gives up. With more, a VM
/// whose pages do not shrink spends its processors on packing them; with fewer, one whose pages are
/// all in use by chance gives up too soon, because each try takes a chunk's second chance.
const MOST_FAILURES: usize = 64;
/// Longest wait for free write buffers. On a slower disk the VM gives less, and faults wait no
/// longer.
const BUFFER_TIMEOUT: Duration = Duration::from_millis(100);

/// Result of [`Pmap::page_out`](crate::Pmap::page_out) and
/// [`Pmap::page_out_of`](crate::Pmap::page_out_of).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PagedOut {
    /// By how much the VM holds less.
    pub freed: Pages,
    /// Nothing more can be taken for now: the store is full, and the swap is full, slow, broken or
    /// missing; or devices use what is left, or faults have brought all of it in lately.
    pub stuck: bool,
}

/// Takes pages from the guest: chooses chunks, makes room for their pages, and evicts them.
///
/// One thread does this at a time; others wait for it.
pub(crate) struct Eviction {
    vm: Arc<Vm>,
    scanner: Arc<Scanner>,
    state: Lock<State, EVICTION>,
}

#[derive(Debug, Default)]
struct State {
    /// The chunk where copies in the swap are given up next.
    hand: usize,
}

impl Eviction {
    pub(crate) fn new(vm: Arc<Vm>, scanner: Arc<Scanner>) -> Self {
        Self { vm, scanner, state: Lock::default() }
    }

    /// See [`Pmap::page_out`](crate::Pmap::page_out).
    pub(crate) fn page_out(&self, wish: Pages) -> PagedOut {
        let vm = &*self.vm;
        let mut state = self.state.lock();
        let mut out = PagedOut::default();
        let mut failures = 0;
        while out.freed < wish && !out.stuck {
            if !self.make_room(&mut state) {
                out.stuck = true;
                break;
            }
            let Some(no) = self.victim() else {
                out.stuck = true;
                break;
            };
            let shared = self.scanner.share_before(no);
            let left = wish.saturating_sub(out.freed + shared);
            let freed = shared + self.evict(no, Choice::Idle, left, &mut state);
            failures = if freed == Pages::ZERO { failures + 1 } else { 0 };
            out.freed += freed;
            out.stuck = failures >= most_failures(vm.memory.layout().chunks());
            serve_freed(vm, freed);
        }
        // Pages that went from the store into the swap have made room as well.
        serve_waiting(vm);
        out
    }

    /// See [`Pmap::page_out_of`](crate::Pmap::page_out_of).
    pub(crate) fn page_out_of(&self, ranges: &[PpnRange]) -> PagedOut {
        let vm = &*self.vm;
        let mut state = self.state.lock();
        let mut out = PagedOut::default();
        for (no, mut pages) in vm.memory.layout().by_chunk(ranges).0 {
            while !pages.is_empty() {
                if !self.make_room(&mut state) {
                    return PagedOut { stuck: true, ..out };
                }
                let batch = pages.first(Pages(BATCH.into()));
                pages = pages.minus(&batch);
                let freed = self.evict(no, Choice::These(&batch), Pages::CHUNK, &mut state);
                out.freed += freed;
                serve_freed(vm, freed);
            }
        }
        out
    }

    /// Takes about `wish` pages of one chunk; returns by how much the VM holds less. A large chunk
    /// is broken up, which alone frees its pages that were never touched.
    ///
    /// A batch that yields nothing ends it: in a VM whose pages do not shrink, each try would pack
    /// all of them in vain. Among [`Choice::Idle`] pages the first batch is a random one, so that
    /// what it says holds for the chunk, and so that no part of a chunk is spared for ever.
    fn evict(&self, no: ChunkNo, choice: Choice<'_>, wish: Pages, state: &mut State) -> Pages {
        let vm = &*self.vm;
        let (mut freed, all, victims) = victims_in(vm, no, choice);
        let mut left = all;
        let start = match choice {
            Choice::Idle => fastrand::u16(..SLOTS / BATCH) * BATCH,
            Choice::These(_) => 0,
        };
        let before = victims.intersection(&PageSet::span(0, start));
        let mut rest = [victims.minus(&before), before];
        // Makes room for each batch: otherwise pages would be protected and unprotected for
        // nothing.
        while let Some(part) = rest.iter_mut().find(|part| !part.is_empty())
            && freed < wish
            && self.make_room(state)
        {
            let batch = part.first(Pages(BATCH.into()));
            (*part, left) = (part.minus(&batch), left.minus(&batch));
            // The chunk is locked for each batch anew, so that faults are served in between.
            let taken = evict_batch(vm, no, &batch);
            if taken == Pages::ZERO {
                break;
            }
            freed += taken;
        }
        if let (Some(slot), true) = (left.iter().next(), all.is_full()) {
            vm.memory.split_huge_page(Place { chunk: no, slot });
        }
        freed
    }

    /// A chunk with resident pages: of a few random ones, the one that seems to be used least.
    fn victim(&self) -> Option<ChunkNo> {
        let vm = &*self.vm;
        let chunks = vm.memory.layout().chunks();
        let candidates = (0..CANDIDATES).map(|_| ChunkNo(fastrand::usize(..chunks)));
        let usage = |no: ChunkNo| Some((usage(&vm.chunk(no))?, no));
        // Of chunks that seem to be used alike, the first one drawn. Any other order would spare
        // some for ever.
        let best = candidates.filter_map(usage).min_by_key(|(usage, _)| *usage);
        // If few chunks have pages, the next one that has some.
        let next = || {
            let start = fastrand::usize(..chunks);
            (start..chunks).chain(0..start).find_map(|no| usage(ChunkNo(no)))
        };
        best.or_else(next).map(|(_, no)| no)
    }

    /// Makes room for a batch; returns whether any page can be taken. The store's oldest pages go
    /// into the swap; if that is full, copies of resident pages are given up.
    fn make_room(&self, state: &mut State) -> bool {
        let vm = &*self.vm;
        let room_in_store = || vm.content.store_has_room_for(BATCH.into());
        let Some(swap) = vm.content.usable_swap() else { return room_in_store() };
        if swap.free_slots() < Pages(BATCH.into()) {
            self.give_up_copies(swap, state);
        }
        let slots = swap.free_slots() > Pages::ZERO;
        if !slots {
            return room_in_store();
        }
        let buffers = swap.wait_for_buffers(BATCH.into(), BUFFER_TIMEOUT);
        while buffers && !room_in_store() && spill(vm, swap) {}
        buffers || room_in_store()
    }

    /// Gives up the swap's copies of some resident pages, for their slots.
    fn give_up_copies(&self, swap: &Swap, state: &mut State) {
        let vm = &*self.vm;
        for _ in 0..vm.memory.layout().chunks() {
            let no = ChunkNo(state.hand);
            state.hand = (state.hand + 1) % vm.memory.layout().chunks();
            let mut chunk = vm.chunk(no);
            let Backing::Small(table) = &mut chunk.backing else { continue };
            make_all_dirty(vm, no, table);
            if swap.free_slots() >= Pages(BATCH.into()) {
                break;
            }
        }
    }
}

/// Chunks that may yield nothing before eviction gives up: no more than the VM has.
fn most_failures(chunks: usize) -> usize {
    chunks.clamp(CANDIDATES, MOST_FAILURES)
}

/// How much a chunk seems to be used: what its last sample showed, and how many of its pages faults
/// have brought in since eviction last looked at it. `None` if it has no pages to give.
fn usage(chunk: &Chunk) -> Option<(Activity, Pages)> {
    match &chunk.backing {
        Backing::Empty { .. } => None,
        // A sample that was not touched yet says nothing.
        Backing::Large | Backing::Aside(_) => Some((chunk.activity, Pages::ZERO)),
        Backing::Small(table) => {
            let resident = table.pages(PageState::is_resident);
            (!resident.is_empty()).then(|| (chunk.activity, table.recent.count()))
        }
    }
}
