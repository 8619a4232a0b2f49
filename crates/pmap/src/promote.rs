use plimsoll_units::Pages;

use crate::chunk::Backing;
use crate::fault::warn_of_mappings;
use crate::host_range::CHUNK;
use crate::layout::{ChunkNo, Place};
use crate::page_set::PageSet;
use crate::pmap::Pmap;
use crate::table::{PageState, Table};
use crate::touch::Touch;

/// Pages that a small chunk must have to be worth making large: half. With fewer, most of what that costs would be for
/// pages that nobody uses, and whose content may have to be fetched first.
const WORTH: Pages = Pages(Pages::CHUNK.0 / 2);

impl Pmap {
    /// Makes up to `most` small chunks large again, now that pressure has passed: those that have at least half of their
    /// pages, as far as the grant suffices for the rest; returns how many. What is compressed is brought back first. What is
    /// in the swap is asked for, so that a later call finds it there. Chunks with pages in the balloon stay small.
    ///
    /// The kernel is asked for a huge page at once, and makes one later where it has none now.
    pub fn promote(&self, most: usize) -> usize {
        let chunks = if self.huge_pages { self.layout.chunks() } else { 0 };
        let promoted = (0..chunks).map(ChunkNo).filter(|&no| self.promote_chunk(no)).take(most).count();
        self.serve_waiting();
        promoted
    }

    fn promote_chunk(&self, no: ChunkNo) -> bool {
        let mut chunk = self.chunk(no);
        let before = chunk.tally();
        let busy = !chunk.busy().is_empty();
        let Backing::Small(table) = &mut chunk.backing else { return false };
        if before.backed < WORTH || before.ballooned > Pages::ZERO || busy {
            return false;
        }
        let rest = Pages::CHUNK - before.backed;
        let mut left = self.account().charge_spare(rest);
        let promoted = left == rest && self.complete(no, table, &mut left) && self.hand_over(no, table);
        self.give_back_departed(no, table, &PageSet::EMPTY);
        if promoted {
            left = Pages::ZERO;
            chunk.backing = Backing::Large;
        }
        let mut account = self.account();
        account.changed(before, chunk.tally());
        account.uncharge(left);
        promoted
    }

    /// Brings back what pages have elsewhere, and shares nothing any more; false while some of it is on its way.
    fn complete(&self, no: ChunkNo, table: &mut Table, left: &mut Pages) -> bool {
        let apart = |state: PageState| state.is_elsewhere() || state.frame().is_some();
        for slot in table.pages(apart).iter() {
            self.provide(Place { chunk: no, slot }, table, left, Touch::Not);
        }
        table.pages(|state| !state.is_resident() && !state.is_blank()).is_empty()
    }

    /// Lets the kernel serve a chunk from now on whose content is all there.
    fn hand_over(&self, no: ChunkNo, table: &mut Table) -> bool {
        self.make_all_dirty(no, table);
        if let Err(error) = self.heal(no, table) {
            tracing::warn!(%error, "a chunk that had shared pages stays small");
            return false;
        }
        if let Err(error) = self.uffd.disarm(self.chunk_range(no)) {
            warn_of_mappings(&error);
            return false;
        }
        self.mapping.collapse(no.0 * CHUNK);
        true
    }

    /// Gives up the swap's copies of a chunk's resident pages: they may be written from now on.
    pub(crate) fn make_all_dirty(&self, no: ChunkNo, table: &mut Table) {
        let clean = table.pages(|state| matches!(state, PageState::Clean(_)));
        if let Err(error) = self.unprotect(no, &clean) {
            tracing::error!(%error, "pages cannot be let be written");
            return;
        }
        let copies: Vec<_> = clean.iter().map(|slot| table.get(slot)).collect();
        table.set_all(&clean, PageState::Private);
        self.forget(copies);
    }
}
