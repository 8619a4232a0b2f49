use crate::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::io;

use crate::chunk::{Backing, Chunk};
use crate::host_range::CHUNK;
use crate::layout::ChunkNo;
use crate::mutation::Mutation;
use crate::page_set::{PageSet, Slot};
use crate::pmap::Pmap;

/// Most samples at a time. Each needs a place of 2 MiB of address space, 2 GiB in all, and up to three mappings of the
/// 65 530 that a process may have by default. More would gain little: 1000 samples are off by 1.6 % of memory at worst.
pub const MAX_SAMPLES: usize = 1000;

/// A place for what is put aside: one of [`MAX_SAMPLES`], behind guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spare(pub(crate) usize);

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

/// Touches of what is aside, counted by who serves the faults.
#[derive(Debug, Default)]
pub(crate) struct Touches {
    chunks: AtomicU32,
    /// Places in use since the start: the first ones.
    spares: AtomicUsize,
}

impl Touches {
    pub(crate) fn clear(&self) {
        self.chunks.store(0, Ordering::Relaxed);
    }

    pub(crate) fn chunks(&self) -> u64 {
        self.chunks.load(Ordering::Relaxed).into()
    }

    /// How many places have been used: nothing is in the others.
    pub(crate) fn spares(&self) -> usize {
        self.spares.load(Ordering::Relaxed)
    }
}

impl Chunk {
    /// Calls `each` for every place where pages of the chunk are.
    pub(crate) fn aside(&self, mut each: impl FnMut(Spare, PageSet)) {
        if let Backing::Aside(spare) = self.backing {
            each(spare, PageSet::FULL);
        }
    }
}

/// Putting memory aside and bringing it back. All of it under the chunk's lock.
impl Pmap {
    /// Where in the mapping a place is.
    pub(crate) fn spare_offset(&self, spare: Spare) -> usize {
        debug_assert!((spare.0 + 1) * CHUNK <= self.mapping.spare());
        self.mapping.len() + spare.0 * CHUNK
    }

    /// Puts all pages of a large chunk aside, so that its next touch asks. It stays charged. Armed first: a page touched
    /// in between would be present in the chunk, and lost when the others come back.
    ///
    /// On error the chunk is as it was.
    pub(crate) fn put_chunk_aside(&self, no: ChunkNo, chunk: &mut Chunk, spare: Spare) -> io::Result<()> {
        let range = self.chunk_range(no);
        self.touches.spares.fetch_max(spare.0 + 1, Ordering::Relaxed);
        self.uffd.arm(range)?;
        if let Err(error) = self.mapping.relocate(no.0 * CHUNK, self.spare_offset(spare), CHUNK) {
            self.uffd.disarm(range)?;
            return Err(error);
        }
        chunk.backing = Backing::Aside(spare);
        Ok(())
    }

    /// Brings a chunk that is aside back, which makes it large again, and wakes who waits for its pages. On error it is
    /// still aside.
    pub(crate) fn bring_back(&self, no: ChunkNo, chunk: &mut Chunk) -> io::Result<()> {
        let Backing::Aside(spare) = chunk.backing else { return Ok(()) };
        self.mapping.relocate(self.spare_offset(spare), no.0 * CHUNK, CHUNK)?;
        chunk.backing = Backing::Large;
        self.uffd.wake(self.chunk_range(no))
    }

    /// Notes that a fault has touched page `slot`, before it is answered, and brings back what was aside.
    pub(crate) fn note_touch(&self, no: ChunkNo, chunk: &mut Chunk, _slot: Slot) {
        chunk.evidence = Evidence::None;
        if let Backing::Aside(_) = chunk.backing {
            if let Err(error) = self.bring_back(no, chunk) {
                tracing::error!(%error, ppn = self.layout.ppn(no, 0).0, "cannot bring back a chunk");
                return;
            }
            chunk.evidence = Evidence::Used;
            if !self.mutations.has(Mutation::UncountedTouch) {
                self.touches.chunks.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
