//! Taking pages that the guest does not give.

use std::time::Duration;

use plimsoll_units::Pages;

use super::scanner::Scanner;
use super::service::{serve_freed, serve_waiting};
use crate::address::{ChunkNo, Place, PpnRange};
use crate::content::Swap;
use crate::lock::{EVICTION, Lock};
use crate::page::{Backing, Chunk, Evidence, PageState};
use crate::sync::Arc;
use crate::transition::Vm;
use crate::transition::evict::{BATCH, Choice, evict_batch, victims_in};
use crate::transition::promote::make_all_dirty;
use crate::transition::spill::spill;

/// How many chunks are looked at to find one that is used little. More would come closer to the least used one, for the
/// price of a lock each.
const CANDIDATES: usize = 4;
/// Most chunks that are tried in vain one after the other. More, and a VM whose pages do not shrink
/// spends its processors on packing them; fewer, and one whose pages are all in use by chance gives
/// up too soon: each try takes a chunk's second chance.
const FRUITLESS: usize = 64;
/// How long to wait for the swap to take what it was given. A disk that is slower than that makes the VM give less, and
/// nobody wait longer.
const PATIENCE: Duration = Duration::from_millis(100);

/// What became of [`Pmap::page_out`] or [`Pmap::page_out_of`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PagedOut {
    /// By how much the VM holds less.
    pub freed: Pages,
    /// Nothing more can be taken for now: the store is full and the swap is full, slow, broken or not there; or devices use
    /// what is left, or it was all brought in by faults lately.
    pub stuck: bool,
}

/// Takes pages from the guest: chooses chunks, sees to room for their pages, and has them taken.
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

    /// Takes `wish` pages, or some more, from the guest. Those that hold nothing but zeros are dropped, those that shrink to
    /// half are compressed, and the others swapped out.
    ///
    /// Victims are random (Waldspurger 2002, section 3.3), chunk by chunk, those first that samples have shown to be idle; except
    /// for pages that faults have brought in since eviction last came by: those get a second chance. So what is taken by
    /// mistake is taken once.
    ///
    /// May wait for the disk, though never for a grant. Those who wait for one are served from what this frees. One thread does
    /// this at a time; others wait for it.
    pub(crate) fn page_out(&self, wish: Pages) -> PagedOut {
        let vm = &*self.vm;
        let mut state = self.state.lock();
        let mut out = PagedOut::default();
        let mut fruitless = 0;
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
            fruitless = if freed == Pages::ZERO { fruitless + 1 } else { 0 };
            out.freed += freed;
            out.stuck = fruitless >= most_fruitless(vm.memory.layout().chunks());
            serve_freed(vm, freed);
        }
        // What went from the store into the swap has made room, too.
        serve_waiting(vm);
        out
    }

    /// Takes the pages of `ranges` from the guest, in use or not, like `madvise(MADV_PAGEOUT)`: for a caller that knows better than
    /// [`Pmap::page_out`] what will not be needed. They go the same ways.
    ///
    /// Pages that are not there are passed over, and so are those that are not RAM. Those that find no room in the store or the
    /// swap stay, and so do those under device I/O or being sampled; what came of it is
    /// [`stuck`](PagedOut::stuck) where there was no room for a batch.
    ///
    /// May wait as `page_out` does.
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

    /// Takes about `wish` pages of one chunk; returns by how much the VM holds less. A large chunk is broken up, which alone
    /// frees the pages of it that were never touched.
    fn evict(&self, no: ChunkNo, choice: Choice<'_>, wish: Pages, state: &mut State) -> Pages {
        let vm = &*self.vm;
        let (mut freed, all, mut victims) = victims_in(vm, no, choice);
        let mut left = all;
        // Room for each batch: pages that find none are protected and unprotected again for nothing.
        while !victims.is_empty() && freed < wish && self.make_room(state) {
            let batch = victims.first(Pages(BATCH.into()));
            (victims, left) = (victims.minus(&batch), left.minus(&batch));
            // The lock is taken for each batch anew: who waits for it comes in between.
            freed += evict_batch(vm, no, &batch);
        }
        if let (Some(slot), true) = (left.iter().next(), all.is_full()) {
            vm.memory.split_huge_page(Place { chunk: no, slot });
        }
        freed
    }

    /// A chunk with resident pages: of a few random ones the one that seems to be used least.
    fn victim(&self) -> Option<ChunkNo> {
        let vm = &*self.vm;
        let chunks = vm.memory.layout().chunks();
        let candidates = (0..CANDIDATES).map(|_| ChunkNo(fastrand::usize(..chunks)));
        let usage = |no: ChunkNo| Some((usage(&vm.chunk(no))?, no));
        // Among chunks that seem to be used alike the first drawn: any order would spare some for
        // ever.
        let best = candidates.filter_map(usage).min_by_key(|(usage, _)| *usage);
        // Where few chunks have pages, the next one that has.
        let next = || {
            let start = fastrand::usize(..chunks);
            (start..chunks).chain(0..start).find_map(|no| usage(ChunkNo(no)))
        };
        best.or_else(next).map(|(_, no)| no)
    }

    /// Sees to it that a batch can be taken, and returns whether any page can. The store's oldest pages go into the swap; where
    /// that is full, copies of resident pages are given up.
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
        let buffers = swap.wait_for_buffers(BATCH.into(), PATIENCE);
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

/// How many of a VM's chunks are tried in vain before its pager gives up: no more than it has.
fn most_fruitless(chunks: usize) -> usize {
    chunks.clamp(CANDIDATES, FRUITLESS)
}

/// How much a chunk seems to be used: what was seen of it, and how many of its pages faults have brought in since eviction last
/// came by. `None` where it has no pages to give.
fn usage(chunk: &Chunk) -> Option<(Evidence, Pages)> {
    match &chunk.backing {
        Backing::Empty { .. } => None,
        // What is being watched and was not touched yet counts like what nobody has looked at.
        Backing::Large | Backing::Aside(_) => Some((chunk.evidence, Pages::ZERO)),
        Backing::Small(table) => {
            let resident = table.pages(PageState::is_resident);
            (!resident.is_empty()).then(|| (chunk.evidence, table.recent.count()))
        }
    }
}

#[cfg(all(test, not(feature = "model-check")))]
mod tests {
    use super::*;
    use crate::tests::harness::paged;
    use crate::tests::paging::{noise, put};

    #[test]
    fn victims_are_random_among_chunks_that_seem_to_be_used_alike() {
        // Its last chunk is empty.
        let vm = paged(9, 8 * 512, true, 0, 512);
        (0..8).for_each(|chunk| put(&vm, chunk * 512, &noise(chunk)));
        let mut drawn = [0; 8];
        for _ in 0..800 {
            drawn[vm.pmap.eviction().victim().unwrap().0] += 1;
        }
        // Each is drawn 100 times, give or take 30 at four standard deviations and more.
        assert!(drawn.iter().all(|n| (40..160).contains(n)), "{drawn:?}");
    }

    #[test]
    fn a_small_vm_gives_up_when_all_its_chunks_were_tried() {
        assert_eq!([1, 32, 64, 4096].map(most_fruitless), [4, 32, 64, 64]);
    }
}
