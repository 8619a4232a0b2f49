use std::time::Duration;

use plimsoll_units::Pages;

use crate::aside::Evidence;
use crate::chunk::{Backing, Chunk, lock};
use crate::evict::{BATCH, Choice};
use crate::layout::{ChunkNo, Place, PpnRange};
use crate::pmap::Pmap;
use crate::swap::Swap;
use crate::table::PageState;

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

impl Pmap {
    /// Takes `wish` pages, or some more, from the guest. Those that hold nothing but zeros are dropped, those that shrink to
    /// half are compressed, and the others swapped out.
    ///
    /// Victims are random (Waldspurger 2002, section 3.3), chunk by chunk, those first that samples have shown to be idle; except
    /// for pages that faults have brought in since eviction last came by: those get a second chance. So what is taken by
    /// mistake is taken once.
    ///
    /// May wait for the disk, though never for a grant. Those who wait for one are served from what this frees. One thread does
    /// this at a time; others wait for it.
    pub fn page_out(&self, wish: Pages) -> PagedOut {
        let mut eviction = lock(&self.eviction);
        let mut out = PagedOut::default();
        let mut fruitless = 0;
        while out.freed < wish && !out.stuck {
            if !self.make_room(&mut eviction) {
                out.stuck = true;
                break;
            }
            let Some(no) = self.victim() else {
                out.stuck = true;
                break;
            };
            let shared = self.share_before(no);
            let left = wish.saturating_sub(out.freed + shared);
            let freed = shared + self.evict(no, Choice::Idle, left, &mut eviction);
            fruitless = if freed == Pages::ZERO { fruitless + 1 } else { 0 };
            out.freed += freed;
            out.stuck = fruitless >= most_fruitless(self.layout.chunks());
            self.serve_freed(freed);
        }
        // What went from the store into the swap has made room, too.
        self.serve_waiting();
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
    pub fn page_out_of(&self, ranges: &[PpnRange]) -> PagedOut {
        let mut eviction = lock(&self.eviction);
        let mut out = PagedOut::default();
        for (no, mut pages) in self.layout.by_chunk(ranges).0 {
            while !pages.is_empty() {
                if !self.make_room(&mut eviction) {
                    return PagedOut { stuck: true, ..out };
                }
                let batch = pages.first(Pages(BATCH.into()));
                pages = pages.minus(&batch);
                let freed = self.evict(no, Choice::These(&batch), Pages::CHUNK, &mut eviction);
                out.freed += freed;
                self.serve_freed(freed);
            }
        }
        out
    }

    /// A chunk with resident pages: of a few random ones the one that seems to be used least.
    fn victim(&self) -> Option<ChunkNo> {
        let chunks = self.layout.chunks();
        let candidates = (0..CANDIDATES).map(|_| ChunkNo(fastrand::usize(..chunks)));
        let usage = |no: ChunkNo| Some((usage(&self.chunk(no))?, no));
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
    pub(crate) fn make_room(&self, eviction: &mut Eviction) -> bool {
        let room_in_store = || lock(&self.store).room_for(BATCH.into());
        let Some(swap) = self.usable_swap() else { return room_in_store() };
        if swap.free_slots() < Pages(BATCH.into()) {
            self.give_up_copies(swap, eviction);
        }
        let slots = swap.free_slots() > Pages::ZERO;
        if !slots {
            return room_in_store();
        }
        let buffers = swap.wait_for_buffers(BATCH.into(), PATIENCE);
        while buffers && !room_in_store() && self.spill(swap) {}
        buffers || room_in_store()
    }

    /// Moves the oldest page of the store into the swap; false where that cannot be done.
    fn spill(&self, swap: &Swap) -> bool {
        let Some((handle, owner)) = lock(&self.store).oldest() else { return false };
        let place = Place::of(owner);
        let mut chunk = self.chunk(place.chunk);
        let before = chunk.tally();
        let compressed = PageState::Compressed(handle);
        let Backing::Small(table) = &mut chunk.backing else { return true };
        if table.get(place.slot) != compressed {
            // It has just been brought back or given up, and is not the oldest any more.
            return true;
        }
        let Some(mut buffer) = swap.buffer() else { return false };
        let Some(&to) = swap.reserve(1).first() else { return false };
        lock(&self.store).read(handle, &mut buffer);
        table.set(place.slot, PageState::Leaving(to));
        swap.write(vec![(to, owner, buffer)]);
        self.record(before, &chunk);
        self.account().traffic.swapped_out += 1;
        self.forget([compressed]);
        true
    }

    /// Gives up the swap's copies of some resident pages, for their slots.
    fn give_up_copies(&self, swap: &Swap, eviction: &mut Eviction) {
        for _ in 0..self.layout.chunks() {
            let no = ChunkNo(eviction.hand);
            eviction.hand = (eviction.hand + 1) % self.layout.chunks();
            let mut chunk = self.chunk(no);
            let Backing::Small(table) = &mut chunk.backing else { continue };
            self.make_all_dirty(no, table);
            if swap.free_slots() >= Pages(BATCH.into()) {
                break;
            }
        }
    }

    /// The swap, while it takes pages.
    pub(crate) fn usable_swap(&self) -> Option<&Swap> {
        self.swap.as_ref().filter(|_| !self.swap_failed())
    }
}

/// Where eviction has come to. Its lock is the outermost.
#[derive(Debug, Default)]
pub(crate) struct Eviction {
    /// The chunk where copies in the swap are given up next.
    hand: usize,
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
            drawn[vm.pmap.victim().unwrap().0] += 1;
        }
        // Each is drawn 100 times, give or take 30 at four standard deviations and more.
        assert!(drawn.iter().all(|n| (40..160).contains(n)), "{drawn:?}");
    }

    #[test]
    fn a_small_vm_gives_up_when_all_its_chunks_were_tried() {
        assert_eq!([1, 32, 64, 4096].map(most_fruitless), [4, 32, 64, 64]);
    }
}
