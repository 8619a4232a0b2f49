//! Dropping pages that hold zeros, and breaking up large chunks for that and to share pages of them.

use std::io;

use plimsoll_units::Pages;

use crate::chunk::Backing;
use crate::host_range::PAGE;
use crate::layout::{ChunkNo, Place};
use crate::page_set::{PageSet, Slot};
use crate::pmap::Pmap;
use crate::table::{PageState, Table};

impl Pmap {
    /// Drops pages that hold zeros; returns by how much the VM holds less.
    pub(crate) fn drop_zeros(&self, no: ChunkNo, zeros: &PageSet) -> Pages {
        if zeros.is_empty() {
            return Pages::ZERO;
        }
        let mut chunk = self.chunk(no);
        let before = chunk.tally();
        let busy = chunk.busy();
        let Backing::Small(table) = &mut chunk.backing else { return Pages::ZERO };
        let pages = table.among(zeros, PageState::is_resident).minus(&busy);
        let dropped = match self.drop_if_zero(no, table, &pages) {
            Ok(dropped) => dropped,
            Err(error) => {
                tracing::warn!(%error, "pages that hold zeros stay");
                return Pages::ZERO;
            }
        };
        let copies: Vec<_> = dropped.iter().map(|slot| table.get(slot)).collect();
        table.set_all(&dropped, PageState::Zero);
        self.forget(copies);
        chunk.empty_if_uniform();
        self.account().sharing.zeroed += dropped.count().0;
        let freed = self.record(before, &chunk);
        self.wake_all(no, &dropped);
        freed
    }

    fn drop_if_zero(&self, no: ChunkNo, table: &mut Table, pages: &PageSet) -> io::Result<PageSet> {
        self.rehome(no, table, pages)?;
        let dirty = table.unguarded(pages);
        let outcome = self.protect(no, &dirty).and_then(|()| {
            let zeros = self.holding_zeros(no, pages);
            for (first, len) in zeros.runs() {
                let offset = self.offset(Place { chunk: no, slot: first });
                self.mapping.discard(offset, usize::from(len) * PAGE)?;
            }
            Ok(zeros)
        });
        // Also those that are gone: nothing is there that could be protected.
        self.unprotect(no, &dirty)?;
        outcome
    }

    /// Breaks a large chunk up, so that pages of it can be shared; false where that cannot be.
    pub(crate) fn break_large(&self, no: ChunkNo) -> bool {
        let mut chunk = self.chunk(no);
        let before = chunk.tally();
        if let Backing::Aside(_) = chunk.backing
            && let Err(error) = self.bring_back(no, &mut chunk)
        {
            tracing::warn!(%error, "a chunk stays aside, and pages of it are not shared");
            return false;
        }
        let Backing::Large = chunk.backing else { return true };
        if !chunk.busy().is_empty() {
            return false;
        }
        match self.break_up(no) {
            Ok(table) => chunk.backing = Backing::Small(table),
            Err(error) => {
                tracing::warn!(%error, "a large chunk cannot be broken up to share pages of it");
                return false;
            }
        }
        self.mapping.split_huge_page(self.offset(Place { chunk: no, slot: 0 }));
        chunk.empty_if_uniform();
        let freed = self.record(before, &chunk);
        drop(chunk);
        self.serve_freed(freed);
        true
    }

    /// Those of `pages`, which must be there, that hold zeros.
    fn holding_zeros(&self, no: ChunkNo, pages: &PageSet) -> PageSet {
        let is_zero = |&slot: &Slot| self.mapping.is_zero(self.offset(Place { chunk: no, slot }));
        pages.iter().filter(is_zero).collect()
    }
}
