//! Taking pages out of a chunk that the guest does not give: into the store, into the swap, or, where they hold nothing
//! but zeros, away.

use std::io;

use plimsoll_units::Pages;

use crate::aside::Evidence;
use crate::chunk::{Backing, lock};
use crate::host_range::PAGE;
use crate::layout::{ChunkNo, Place};
use crate::mutation::Mutation;
use crate::page_out::Eviction;
use crate::page_set::{PageSet, Slot};
use crate::pmap::Pmap;
use crate::store::{MOST_PACKED, pack};
use crate::swap::{Buffer, SwapSlot};
use crate::table::{PageState, Table};

/// Pages that are taken under one hold of a chunk's lock. A fault in the chunk waits for as long: compressing a page takes
/// some 5 us. Fewer, and the flushes of the processors' address caches are shared by fewer.
pub(crate) const BATCH: Slot = 64;
/// Fewer pages of a batch are not worth compressing: the store may have to begin a page, and its index another, and what
/// it comes to occupy must never be more than what was freed for it.
const FEWEST_PACKED: usize = 4;

/// The pages of a batch, by what is to become of them.
#[derive(Default)]
struct Sorted {
    /// They hold zeros.
    zeros: PageSet,
    /// Compressed, as (page, length); their content one after the other.
    packed: Vec<(Slot, usize)>,
    content: Vec<u8>,
    /// Copied, for the swap.
    copied: Vec<(Slot, SwapSlot, Buffer)>,
}

/// Which of a chunk's pages may be taken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Choice<'a> {
    /// All but those that faults have brought in since this was last tried; and none where the last sample saw the chunk in use.
    Idle,
    /// These, in use or not.
    These(&'a PageSet),
}

impl Pmap {
    /// Takes about `wish` pages of one chunk; returns by how much the VM holds less. A large chunk is broken up, which alone
    /// frees the pages of it that were never touched.
    pub(crate) fn evict(
        &self,
        no: ChunkNo,
        choice: Choice<'_>,
        wish: Pages,
        eviction: &mut Eviction,
    ) -> Pages {
        let (mut freed, all, mut victims) = self.victims_in(no, choice);
        let mut left = all;
        // Room for each batch: pages that find none are protected and unprotected again for nothing.
        while !victims.is_empty() && freed < wish && self.make_room(eviction) {
            let batch = victims.first(Pages(BATCH.into()));
            (victims, left) = (victims.minus(&batch), left.minus(&batch));
            // The lock is taken for each batch anew: who waits for it comes in between.
            freed += self.evict_batch(no, &batch);
        }
        if let (Some(slot), true) = (left.iter().next(), all.is_full()) {
            self.mapping.split_huge_page(self.offset(Place { chunk: no, slot }));
        }
        freed
    }

    /// The pages that a chunk has, and those of them that may be taken. It is small afterwards; and what making it so has freed.
    fn victims_in(&self, no: ChunkNo, choice: Choice<'_>) -> (Pages, PageSet, PageSet) {
        let mut chunk = self.chunk(no);
        let before = chunk.tally();
        if let Backing::Aside(_) = chunk.backing
            && let Err(error) = self.bring_back(no, &mut chunk)
        {
            tracing::warn!(%error, "a chunk that is aside cannot be brought back to take pages from it");
        }
        if let Backing::Large = chunk.backing {
            let used = std::mem::take(&mut chunk.evidence) == Evidence::Used;
            if used && matches!(choice, Choice::Idle) {
                return (Pages::ZERO, PageSet::EMPTY, PageSet::EMPTY);
            }
            match self.break_up(no) {
                Ok(table) => chunk.backing = Backing::Small(table),
                Err(error) => {
                    tracing::warn!(%error, "a large chunk cannot be broken up to take pages from it")
                }
            }
        }
        let (all, victims) = match &mut chunk.backing {
            Backing::Small(table) => {
                let all = table.pages(PageState::is_resident);
                let victims = match choice {
                    Choice::Idle => all.minus(&std::mem::take(&mut table.recent)),
                    Choice::These(pages) => all.intersection(pages),
                };
                (all, victims)
            }
            Backing::Empty { .. } | Backing::Large | Backing::Aside(_) => (PageSet::EMPTY, PageSet::EMPTY),
        };
        chunk.empty_if_uniform();
        (self.record(before, &chunk), all, victims)
    }

    fn evict_batch(&self, no: ChunkNo, batch: &PageSet) -> Pages {
        let mut chunk = self.chunk(no);
        let before = chunk.tally();
        let batch = batch.minus(&chunk.busy());
        let Backing::Small(table) = &mut chunk.backing else { return Pages::ZERO };
        let batch = table.among(&batch, PageState::is_resident);
        let clean = table.among(&batch, |state| matches!(state, PageState::Clean(_)));
        let dirty = batch.minus(&clean);
        let freed = self.take(no, table, &dirty, &clean);
        chunk.empty_if_uniform();
        self.account().changed(before, chunk.tally());
        freed
    }

    /// Takes pages and settles what they cost; returns by how much the VM holds less.
    fn take(&self, no: ChunkNo, table: &mut Table, dirty: &PageSet, clean: &PageSet) -> Pages {
        if let Err(error) = self.rehome(no, table, dirty) {
            tracing::warn!(%error, "pages cannot be taken out of the mapping of a frame, and stay");
            return Pages::ZERO;
        }
        let sorted = match self.protect(no, dirty) {
            Ok(()) => self.sort(no, dirty),
            Err(error) => {
                tracing::warn!(%error, "pages cannot be write-protected and stay");
                Sorted::default()
            }
        };
        let gone = sorted.pages().union(clean);
        for (first, len) in gone.runs() {
            let offset = self.offset(Place { chunk: no, slot: first });
            if let Err(error) = self.mapping.discard(offset, usize::from(len) * PAGE) {
                // Nothing is lost: they cannot be written, and a touch finds them.
                tracing::error!(%error, "pages that were taken from the guest stay resident");
            }
        }
        // The rest may be written again.
        if let Err(error) = self.unprotect(no, &dirty.minus(&gone)) {
            tracing::error!(%error, "pages stay write-protected");
        }
        self.dispose(no, table, sorted, clean, gone.count())
    }

    /// Gives pages that are gone their new states, and charges the store for what it has taken in their place.
    fn dispose(&self, no: ChunkNo, table: &mut Table, sorted: Sorted, clean: &PageSet, gone: Pages) -> Pages {
        {
            let mut account = self.account();
            account.traffic.zeros += sorted.zeros.count().0;
            account.traffic.zipped += sorted.packed.len() as u64;
            account.traffic.swapped_out += sorted.copied.len() as u64 + clean.count().0;
        }
        for slot in clean.iter() {
            if let PageState::Clean(copy) = table.get(slot) {
                table.set(slot, PageState::Swapped(copy));
            }
        }
        table.set_all(&sorted.zeros, PageState::Zero);
        let owner = |slot| Place { chunk: no, slot }.index();
        let leave = |(slot, to, buffer)| {
            table.set(slot, PageState::Leaving(to));
            (to, owner(slot), buffer)
        };
        let writes = sorted.copied.into_iter().map(leave).collect();
        if let Some(swap) = &self.swap {
            swap.write(writes);
        }
        let mut content = sorted.content.as_slice();
        self.in_store(gone, |store| {
            let before = store.pages();
            for (slot, len) in sorted.packed {
                let packed = content.split_off(..len).expect("what was appended, page by page");
                let handle = store.insert(owner(slot), packed).expect("there is room for a batch");
                table.set(slot, PageState::Compressed(handle));
            }
            (gone + before).saturating_sub(store.pages())
        })
    }

    /// Looks at pages, which nobody can write, and decides what is to become of them. Those that are left out stay.
    fn sort(&self, no: ChunkNo, pages: &PageSet) -> Sorted {
        let mut sorted = Sorted::default();
        let mut page = Box::new([0; PAGE]);
        let mut packed = [0; MOST_PACKED];
        let room = lock(&self.store).room_for(BATCH.into());
        let mut bulky = PageSet::EMPTY;
        for slot in pages.iter() {
            self.mapping.read_page(self.offset(Place { chunk: no, slot }), &mut page);
            if is_zero(&page) {
                sorted.zeros.insert(slot);
            } else if let Some(len) = room.then(|| pack(&page, &mut packed)).flatten() {
                sorted.packed.push((slot, len));
                sorted.content.extend_from_slice(&packed[..len]);
            } else {
                bulky.insert(slot);
            }
        }
        if sorted.packed.len() < FEWEST_PACKED {
            bulky = bulky.union(&sorted.packed.drain(..).map(|(slot, _)| slot).collect());
            sorted.content.clear();
        }
        sorted.copied = self.copy_for_swap(no, &bulky);
        sorted
    }

    /// Copies pages into write buffers, each with a slot of the swap, as far as there are buffers and slots.
    fn copy_for_swap(&self, no: ChunkNo, pages: &PageSet) -> Vec<(Slot, SwapSlot, Buffer)> {
        let Some(swap) = self.usable_swap() else { return Vec::new() };
        let mut copied = Vec::new();
        let slots = swap.reserve(Slot::try_from(pages.count().0).unwrap_or(BATCH));
        let mut pages = pages.iter();
        for to in slots {
            let next = pages.next().zip(swap.buffer());
            let Some((slot, mut buffer)) = next else {
                swap.free(to);
                continue;
            };
            self.mapping.read_page(self.offset(Place { chunk: no, slot }), &mut buffer);
            copied.push((slot, to, buffer));
        }
        copied
    }

    pub(crate) fn protect(&self, no: ChunkNo, pages: &PageSet) -> io::Result<()> {
        if self.mutations.has(Mutation::NoProtection) {
            return Ok(());
        }
        pages.runs().try_for_each(|run| self.uffd.protect(self.run_range(no, run)))
    }

    /// Lets pages be written again, and wakes who waits for that.
    pub(crate) fn unprotect(&self, no: ChunkNo, pages: &PageSet) -> io::Result<()> {
        pages.runs().try_for_each(|run| self.uffd.unprotect(self.run_range(no, run)))
    }
}

impl Sorted {
    fn pages(&self) -> PageSet {
        let packed = self.packed.iter().map(|&(slot, _)| slot);
        let copied = self.copied.iter().map(|&(slot, ..)| slot);
        packed.chain(copied).collect::<PageSet>().union(&self.zeros)
    }
}

pub(crate) fn is_zero(page: &[u8; PAGE]) -> bool {
    page.chunks_exact(256).all(|part| part.iter().fold(0, |any, byte| any | byte) == 0)
}
