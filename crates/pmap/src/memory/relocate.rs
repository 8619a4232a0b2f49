//! Moving pages to another place of the mapping, contents and all.
//!
//! Behind guest RAM lie a gap, places for memory that is set aside, a *blank* chunk that is never
//! touched, and a *staging* chunk where copies are put together.

#[cfg(all(test, not(feature = "model-check")))]
mod tests;

use std::io;
use std::sync::Once;

use super::{Memory, offset};
use crate::address::{CHUNK, ChunkNo, PAGE, PageSet, Place, Slot, Spare};
use crate::memory::{Access, Wake};
use crate::sync::atomic::Ordering;

/// Setting memory aside and bringing it back.
impl Memory {
    /// Where in the mapping a place behind guest RAM is. Notes that it is used.
    pub(crate) fn spare_offset(&self, spare: Spare) -> usize {
        self.spare_chunks.fetch_max(spare.chunks(), Ordering::Relaxed);
        self.kernel.mapping.len() + spare.index() * PAGE
    }

    /// How many chunks for memory set aside have been used. The others are empty.
    pub(crate) fn spare_chunks(&self) -> usize {
        self.spare_chunks.load(Ordering::Relaxed) as usize
    }

    /// Moves a run of pages to `spare`. They are missing then, and armed as before.
    pub(crate) fn set_aside(&self, no: ChunkNo, run: (Slot, Slot), spare: Spare) -> io::Result<()> {
        let from = offset(Place { chunk: no, slot: run.0 });
        self.kernel.relocate(from, self.spare_offset(spare), usize::from(run.1) * PAGE)
    }

    /// Moves a run of pages back from `spare`. True if it was moved, and is not armed then; false
    /// if it had to be copied, and is armed as before.
    pub(crate) fn bring_back(&self, no: ChunkNo, run: (Slot, Slot), spare: Spare) -> io::Result<bool> {
        let to = offset(Place { chunk: no, slot: run.0 });
        match self.kernel.relocate(self.spare_offset(spare), to, usize::from(run.1) * PAGE) {
            Ok(()) => Ok(true),
            Err(error) => self.copy_back(&error, no, run, spare).map(|()| false),
        }
    }

    /// Brings pages back by copying them. A process with as many mappings as it may have can move
    /// none, and a thread may be waiting for these. The missing pages in guest RAM have a mapping,
    /// so a copy needs no other. Huge pages are lost, and the pages are there twice for a while.
    ///
    /// The pages are write-protected until all are there. So a part of a failed attempt is as good
    /// as the original.
    fn copy_back(
        &self,
        why: &io::Error,
        no: ChunkNo,
        (first, len): (Slot, Slot),
        from: Spare,
    ) -> io::Result<()> {
        static LOGGED: Once = Once::new();
        LOGGED.call_once(
            || tracing::warn!(%why, "samples are copied back instead of moved: raise vm.max_map_count"),
        );
        let from = self.spare_offset(from);
        let mut page = Box::new([0; PAGE]);
        for slot in first..first + len {
            self.kernel.mapping.read_page(from + usize::from(slot - first) * PAGE, &mut page);
            let address = self.page_address(Place { chunk: no, slot });
            match self.kernel.put(address, &page, Access::ReadOnly, Wake::Nobody) {
                Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
                _ => {}
            }
        }
        // All pages are there: the copy has succeeded, whatever fails below.
        if let Err(error) = self.unprotect_run(no, (first, len)) {
            tracing::error!(%error, "pages stay write-protected");
        }
        if let Err(error) = self.kernel.discard(from, usize::from(len) * PAGE) {
            tracing::error!(%error, "copies of pages stay behind");
        }
        Ok(())
    }
}

/// Replacing what is mapped.
impl Memory {
    /// Moves an anonymous copy of a run of pages, all write-protected, into its place, and arms it.
    pub(crate) fn replace_by_copy(&self, no: ChunkNo, run: (Slot, Slot)) -> io::Result<()> {
        let (offset, bytes) = (offset(Place { chunk: no, slot: run.0 }), usize::from(run.1) * PAGE);
        let staging = self.staging.lock();
        let from = self.kernel.mapping.staging();
        self.kernel.mapping.copy(offset, from, bytes);
        let moved = self.kernel.relocate(from, offset, bytes);
        self.clear_staging(&moved);
        drop(staging);
        moved?;
        self.arm_run(no, run)
    }

    /// Puts fresh anonymous memory in the place of a run. It is not armed.
    pub(crate) fn put_blank(&self, no: ChunkNo, run: (Slot, Slot)) -> io::Result<()> {
        let (offset, bytes) = (offset(Place { chunk: no, slot: run.0 }), usize::from(run.1) * PAGE);
        self.kernel.relocate(self.kernel.mapping.blank(), offset, bytes)
    }

    /// Makes one mapping of a chunk whose pages are `resident`, all write-protected, or blank. It
    /// is not armed then. On error nothing has changed.
    pub(crate) fn replace_by_one_mapping(&self, no: ChunkNo, resident: &PageSet) -> io::Result<()> {
        let staging = self.staging.lock();
        let from = self.kernel.mapping.staging();
        for (first, len) in resident.runs() {
            let to = from + usize::from(first) * PAGE;
            self.kernel.mapping.copy(offset(Place { chunk: no, slot: first }), to, usize::from(len) * PAGE);
        }
        let moved = self.kernel.relocate(from, no.0 * CHUNK, CHUNK);
        self.clear_staging(&moved);
        drop(staging);
        moved?;
        self.kernel.mapping.allow_huge(no.0 * CHUNK, CHUNK);
        Ok(())
    }

    /// Drops copies that could not be moved, so that they do not come to another page's place.
    fn clear_staging(&self, moved: &io::Result<()>) {
        if moved.is_err()
            && let Err(error) = self.kernel.discard(self.kernel.mapping.staging(), CHUNK)
        {
            tracing::error!(%error, "copies of pages stay behind");
        }
    }
}
