//! Taking pages out of the mappings of frames, back into anonymous memory.
//!
//! A page that was shared lies in a mapping of the frame pool, also after the guest has written to it and the kernel has
//! copied it: it is then *overlaid*. Discarded there it would be the frame again, and a fresh anonymous mapping is not armed
//! for a moment. So whatever is to happen to such a page, it gets an anonymous place first, in one of two ways.

use std::io;

use crate::chunk::{Backing, Chunk, lock};
use crate::host_range::{CHUNK, PAGE};
use crate::islands::Islands;
use crate::layout::{ChunkNo, Place};
use crate::mutation::Mutation;
use crate::page_set::{PageSet, SLOTS};
use crate::pmap::Pmap;
use crate::table::{PageState, Table};

impl Pmap {
    /// Puts anonymous memory in place of those of `pages` that are overlaid, content and all. No device may use them.
    ///
    /// They are copied to a place of their own and moved from there, which is one step for everybody else: a page is there,
    /// with its content, before and after. What is written in between waits, and comes to the new page.
    pub(crate) fn rehome(&self, no: ChunkNo, table: &mut Table, pages: &PageSet) -> io::Result<()> {
        let pages = pages.intersection(&table.overlaid);
        if pages.is_empty() || self.mutations.has(Mutation::NoRehoming) {
            return Ok(());
        }
        self.protect(no, &pages)?;
        let moved = pages.runs().try_for_each(|run| {
            self.replace(no, run)?;
            table.overlaid = table.overlaid.minus(&PageSet::span(run.0, run.1));
            table.islands.put(run.0, run.1);
            Ok(())
        });
        // Whoever waits to write to one of them writes to its new place, or, where it has none, to the old one.
        self.unprotect(no, &pages)?;
        moved
    }

    /// Moves a copy of a run of pages, which nobody can write, into its place.
    fn replace(&self, no: ChunkNo, (first, len): (u16, u16)) -> io::Result<()> {
        let (offset, bytes) = (self.offset(Place { chunk: no, slot: first }), usize::from(len) * PAGE);
        let staging = lock(&self.staging);
        self.mapping.copy(offset, self.mapping.staging(), bytes);
        let moved = self.mapping.relocate(self.mapping.staging(), offset, bytes);
        self.clear_staging(&moved);
        drop(staging);
        moved?;
        self.uffd.arm(self.run_range(no, (first, len)))
    }

    /// Puts fresh anonymous memory in place of those of `pages` that lie in the mapping of a frame, and gives the frames up. Their
    /// content is lost: it is for pages that the guest has given up, and that are discarded next. Shared ones are absent then.
    ///
    /// A whole chunk is one mapping afterwards. Where single pages are replaced, each run of them is one: the kernel does not
    /// join them with their neighbours.
    pub(crate) fn renew(&self, no: ChunkNo, table: &mut Table, pages: &PageSet) -> io::Result<()> {
        let shared = table.among(pages, |state| state.frame().is_some());
        let framed = pages.intersection(&table.overlaid).union(&shared);
        let whole = pages.is_full() && !table.islands.is_empty();
        for run in if whole { *pages } else { framed }.runs() {
            let offset = self.offset(Place { chunk: no, slot: run.0 });
            self.mapping.relocate(self.mapping.blank(), offset, usize::from(run.1) * PAGE)?;
            table.islands.put(run.0, run.1);
            // What the guest touches until here it gets unasked. It is discarded with the rest.
            self.uffd.arm(self.run_range(no, run))?;
            self.mapping.discard(offset, usize::from(run.1) * PAGE)?;
            let run = PageSet::span(run.0, run.1);
            for slot in run.intersection(&shared).iter() {
                if let PageState::Shared(frame) = table.get(slot) {
                    table.set(slot, PageState::Absent);
                    table.departed.push((slot, frame));
                }
            }
            table.overlaid = table.overlaid.minus(&run);
            // Whoever waits to write to what was shared must ask anew.
            run.runs().for_each(|run| self.wake_run(no, run));
        }
        if whole {
            table.islands = Islands::default();
        }
        Ok(())
    }

    /// Makes one mapping of a chunk of which nothing is left, so that it can be empty.
    pub(crate) fn level(&self, no: ChunkNo, chunk: &mut Chunk) {
        let Backing::Small(table) = &mut chunk.backing else { return };
        if table.is_empty().is_some()
            && !table.islands.is_empty()
            && let Err(error) = self.renew(no, table, &PageSet::FULL)
        {
            tracing::debug!(%error, "a chunk of which nothing is left stays small");
        }
    }

    /// Makes one mapping of a chunk that had shared pages: the kernel makes huge pages of nothing else. All of its pages are
    /// resident or blank, and no device uses them.
    pub(crate) fn heal(&self, no: ChunkNo, table: &mut Table) -> io::Result<()> {
        if table.islands.is_empty() {
            return Ok(());
        }
        let resident = table.pages(PageState::is_resident);
        self.protect(no, &resident)?;
        let staging = lock(&self.staging);
        for (first, len) in resident.runs() {
            let offset = self.offset(Place { chunk: no, slot: first });
            let to = self.mapping.staging() + usize::from(first) * PAGE;
            self.mapping.copy(offset, to, usize::from(len) * PAGE);
        }
        let moved = self.mapping.relocate(self.mapping.staging(), no.0 * CHUNK, CHUNK);
        self.clear_staging(&moved);
        drop(staging);
        if let Err(error) = moved {
            self.unprotect(no, &resident)?;
            return Err(error);
        }
        (table.overlaid, table.islands) = (PageSet::EMPTY, Islands::default());
        self.mapping.allow_huge(no.0 * CHUNK, CHUNK);
        self.uffd.arm(self.chunk_range(no))?;
        self.wake_run(no, (0, SLOTS));
        Ok(())
    }

    /// What could not be moved must not come to another page's place.
    fn clear_staging(&self, moved: &io::Result<()>) {
        if moved.is_err()
            && let Err(error) = self.mapping.discard(self.mapping.staging(), CHUNK)
        {
            tracing::error!(%error, "copies of pages stay behind");
        }
    }

    /// Gives back the frames that pages of a chunk had, except where a device may still be reading one.
    pub(crate) fn let_frames_go(&self, no: ChunkNo, chunk: &mut Chunk) {
        let busy = chunk.busy();
        if let Backing::Small(table) = &mut chunk.backing {
            self.give_back_departed(no, table, &busy);
        }
    }
}
