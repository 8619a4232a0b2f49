use std::io;
use std::sync::Once;

use crate::chunk::{Backing, Chunk};
use crate::host_range::{CHUNK, PAGE};
use crate::layout::{ChunkNo, Place};
use crate::mutation::Mutation;
use crate::page_set::{PageSet, SLOTS, Slot};
use crate::pmap::Pmap;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::table::PageState;
use crate::uffd::Access;

/// Most samples at a time. Each large chunk needs a place of 2 MiB of address space, 2 GiB in all, and up to three mappings
/// of the 65 530 that a process may have by default. More would gain little: 1000 samples are off by 1.6 % of memory at
/// worst.
pub const MAX_SAMPLES: usize = 1000;

/// Places for pages, of the size of a chunk; those for chunks follow.
const PAGE_PLACES: usize = MAX_SAMPLES.div_ceil(SLOTS as usize);
/// All places, in chunks.
pub(crate) const SPARE_CHUNKS: usize = PAGE_PLACES + MAX_SAMPLES;

/// A place for what is put aside, in pages from the end of guest RAM on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spare(u32);

impl Spare {
    /// The place of the page that is the `index`th among the samples.
    pub(crate) fn of_page(index: usize) -> Self {
        Self::new(index)
    }

    /// The place of the chunk that is the `index`th among the samples.
    pub(crate) fn of_chunk(index: usize) -> Self {
        Self::new((PAGE_PLACES + index) * usize::from(SLOTS))
    }

    #[expect(clippy::cast_possible_truncation, reason = "some 500 000 pages at most")]
    fn new(page: usize) -> Self {
        assert!(page < SPARE_CHUNKS * usize::from(SLOTS), "one of the places that there are");
        Self(page as u32)
    }

    /// The place as a chunk and a page of it.
    #[expect(clippy::cast_possible_truncation, reason = "a page of a chunk")]
    pub(crate) fn place(self) -> (usize, Slot) {
        ((self.0 / u32::from(SLOTS)) as usize, (self.0 % u32::from(SLOTS)) as Slot)
    }
}

/// What is known of the use of a chunk, for whoever looks for idle memory; the idlest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Evidence {
    /// It, or a page of it, was not touched for a whole period.
    Idle,
    /// Nothing: it, or its pages, were not sampled since a fault.
    #[default]
    None,
    /// It, or a page of it, was touched when that was watched; or a fault has just made it large.
    Used,
}

/// Touches of what is watched, counted by who serves the faults.
#[derive(Debug, Default)]
pub(crate) struct Touches {
    pub(crate) chunks: AtomicU32,
    pub(crate) pages: AtomicU32,
    /// How much of the places has been used since the start, in chunks.
    spare_chunks: AtomicU32,
}

impl Touches {
    pub(crate) fn clear(&self) {
        self.chunks.store(0, Ordering::Relaxed);
        self.pages.store(0, Ordering::Relaxed);
    }

    /// How many of the chunks behind guest RAM have been used: nothing is in the others.
    pub(crate) fn spare_chunks(&self) -> usize {
        self.spare_chunks.load(Ordering::Relaxed) as usize
    }
}

impl Chunk {
    /// Calls `each` for every place where pages of the chunk are, with how many there are.
    pub(crate) fn aside(&self, mut each: impl FnMut(Spare, Slot)) {
        match &self.backing {
            Backing::Aside(spare) => each(*spare, SLOTS),
            Backing::Small(table) => table.states().for_each(|state| {
                if let PageState::Aside(spare) = state {
                    each(spare, 1);
                }
            }),
            Backing::Empty { .. } | Backing::Large => {}
        }
    }
}

/// Putting memory aside and bringing it back. All of it under the chunk's lock. What is aside stays charged.
impl Pmap {
    /// Where in the mapping a place is. Notes that it is used.
    pub(crate) fn spare_offset(&self, spare: Spare) -> usize {
        self.touches.spare_chunks.fetch_max(spare.0 / u32::from(SLOTS) + 1, Ordering::Relaxed);
        self.mapping.len() + spare.0 as usize * PAGE
    }

    /// Puts all pages of a large chunk aside, so that its next touch asks. Armed first: a page touched in between would be
    /// present in the chunk, and lost when the others come back.
    ///
    /// On error the chunk is as it was.
    pub(crate) fn put_chunk_aside(&self, no: ChunkNo, chunk: &mut Chunk, spare: Spare) -> io::Result<()> {
        let range = self.chunk_range(no);
        self.uffd.arm(range)?;
        if let Err(error) = self.mapping.relocate(no.0 * CHUNK, self.spare_offset(spare), CHUNK) {
            self.uffd.disarm(range)?;
            return Err(error);
        }
        chunk.backing = Backing::Aside(spare);
        Ok(())
    }

    /// Puts a resident page of a small chunk aside. The swap's copy of it, if there is one, is given up: kernels differ in
    /// what they do with the write protection of a page that moves.
    ///
    /// On error the page is where it was, and private.
    pub(crate) fn put_page_aside(&self, place: Place, chunk: &mut Chunk, spare: Spare) -> io::Result<()> {
        let Backing::Small(table) = &mut chunk.backing else { return Ok(()) };
        let state = table.get(place.slot);
        if let PageState::Clean(_) = state {
            self.unprotect(place.chunk, &PageSet::one(place.slot))?;
            table.set(place.slot, PageState::Private);
            self.forget([state]);
        }
        self.rehome(place.chunk, table, &PageSet::one(place.slot))?;
        self.mapping.relocate(self.offset(place), self.spare_offset(spare), PAGE)?;
        table.set(place.slot, PageState::Aside(spare));
        Ok(())
    }

    /// Brings everything of a chunk back that is aside, and wakes who waits for it. A chunk that was aside is large again. On
    /// error the rest is still aside.
    pub(crate) fn bring_back(&self, no: ChunkNo, chunk: &mut Chunk) -> io::Result<()> {
        match &chunk.backing {
            Backing::Aside(_) => self.bring_chunk_back(no, chunk),
            Backing::Small(table) => {
                let aside = table.pages(|state| matches!(state, PageState::Aside(_)));
                aside
                    .iter()
                    .try_for_each(|slot| self.bring_page_back(Place { chunk: no, slot }, chunk).map(drop))
            }
            Backing::Empty { .. } | Backing::Large => Ok(()),
        }
    }

    fn bring_chunk_back(&self, no: ChunkNo, chunk: &mut Chunk) -> io::Result<()> {
        let Backing::Aside(spare) = chunk.backing else { return Ok(()) };
        // That disarms, too: a mapping that moves is none of the userfaultfd's.
        if let Err(error) = self.mapping.relocate(self.spare_offset(spare), no.0 * CHUNK, CHUNK) {
            self.copy_back(&error, no, (0, SLOTS), spare)?;
            if let Err(error) = self.uffd.disarm(self.chunk_range(no)) {
                // All of its pages are there: nobody is asked for any.
                tracing::debug!(%error, "a large chunk stays armed");
            }
        }
        chunk.backing = Backing::Large;
        self.uffd.wake(self.chunk_range(no))
    }

    /// Brings a page of a small chunk back and wakes who waits for it; false where it was not aside.
    pub(crate) fn bring_page_back(&self, place: Place, chunk: &mut Chunk) -> io::Result<bool> {
        let Backing::Small(table) = &mut chunk.backing else { return Ok(false) };
        let PageState::Aside(spare) = table.get(place.slot) else { return Ok(false) };
        if let Err(error) = self.mapping.relocate(self.spare_offset(spare), self.offset(place), PAGE) {
            self.copy_back(&error, place.chunk, (place.slot, 1), spare)?;
        }
        table.set(place.slot, PageState::Private);
        let range = self.run_range(place.chunk, (place.slot, 1));
        // It is present: nobody can find it missing before it is armed again.
        self.uffd.arm(range)?;
        self.uffd.wake(range)?;
        Ok(true)
    }

    /// Brings pages back by copying them, where moving them failed: the process may have so many mappings that the kernel moves none, and
    /// somebody may be waiting for these. What is missing in guest RAM has a mapping, so this needs none. Huge pages are lost, and while it
    /// lasts the pages are there twice.
    ///
    /// They are written by nobody before all are there. What an attempt that failed has left behind is therefore as good as what is aside.
    fn copy_back(
        &self,
        why: &io::Error,
        no: ChunkNo,
        (first, len): (Slot, Slot),
        from: Spare,
    ) -> io::Result<()> {
        static SAID: Once = Once::new();
        SAID.call_once(
            || tracing::warn!(%why, "samples are copied back instead of moved: raise vm.max_map_count"),
        );
        let from = self.spare_offset(from);
        let mut page = Box::new([0; PAGE]);
        for slot in first..first + len {
            self.mapping.read_page(from + usize::from(slot - first) * PAGE, &mut page);
            let address = self.page_address(Place { chunk: no, slot });
            match self.uffd.put(address, &page, Access::ReadOnly, false) {
                Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
                _ => {}
            }
        }
        // All are there: from here on it has been done, whatever else goes wrong.
        if let Err(error) = self.uffd.unprotect(self.run_range(no, (first, len))) {
            tracing::error!(%error, "pages stay write-protected");
        }
        if let Err(error) = self.mapping.discard(from, usize::from(len) * PAGE) {
            tracing::error!(%error, "copies of pages stay behind");
        }
        Ok(())
    }

    /// Notes that a fault has touched page `slot`, before it is answered, and brings back what was aside for it.
    pub(crate) fn note_touch(&self, place: Place, chunk: &mut Chunk) {
        chunk.evidence = Evidence::None;
        let (brought, touches) = match chunk.backing {
            Backing::Aside(_) => {
                (self.bring_chunk_back(place.chunk, chunk).map(|()| true), &self.touches.chunks)
            }
            _ => (self.bring_page_back(place, chunk), &self.touches.pages),
        };
        match brought {
            Ok(false) => {}
            Ok(true) => {
                chunk.evidence = Evidence::Used;
                if let Backing::Small(table) = &mut chunk.backing {
                    table.recent.insert(place.slot);
                }
                if !self.mutations.has(Mutation::UncountedTouch) {
                    touches.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) => {
                tracing::error!(%error, ppn = self.ppn(place).0, "cannot bring back what was put aside");
            }
        }
    }
}
