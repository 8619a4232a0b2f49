#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};

use plimsoll_units::Pages;

use crate::address::{ChunkNo, PageSet, Place};

/// Faults that wait for a grant, chunk by chunk, in the order in which the chunks began to wait.
///
/// A chunk has one entry, however many of its pages are waited for, so the VM's size bounds the
/// queue. A thread that gives up (a signal takes a vCPU out of its fault) leaves its page in the
/// queue. Serving that page costs the VM one page of its own grant.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    order: VecDeque<ChunkNo>,
    entries: HashMap<ChunkNo, Entry>,
    need: Pages,
    faults: Pages,
}

/// What a fault needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A whole chunk, which becomes large; or a page, if the source grants no more.
    Chunk,
    /// One page.
    Page,
}

/// Waiting pages of a chunk that can be served, with `reserved` pages that are charged already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reservation {
    pub(crate) chunk: ChunkNo,
    pub(crate) pages: PageSet,
    pub(crate) reserved: Pages,
}

#[derive(Debug)]
struct Entry {
    pages: PageSet,
    need: Need,
    /// The source has answered with less than a chunk: single pages will do.
    accepts_pages: bool,
}

impl Entry {
    fn need(&self) -> Pages {
        if self.need == Need::Chunk && !self.accepts_pages { Pages::CHUNK } else { self.pages.count() }
    }
}

impl Waiting {
    /// Pages that all waiting faults need together.
    pub(crate) fn need(&self) -> Pages {
        self.need
    }

    /// Pages that are waited for: one for each fault, unless several wait for the same page.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.0
    }

    /// Queues a fault. A chunk that waits already keeps its place.
    pub(crate) fn push(&mut self, place: Place, need: Need) {
        let entry = self.entries.entry(place.chunk).or_insert_with(|| {
            self.order.push_back(place.chunk);
            Entry { pages: PageSet::EMPTY, need, accepts_pages: false }
        });
        let before = if entry.pages.is_empty() { Pages::ZERO } else { entry.need() };
        let faults = entry.pages.count();
        entry.pages.insert(place.slot);
        self.faults = self.faults + entry.pages.count() - faults;
        // The chunk's state may have changed since it began to wait: the latest fault knows it
        // best.
        entry.need = need;
        self.need = self.need + entry.need() - before;
    }

    /// Takes the first chunk for which `slack` pages suffice. A chunk that needs single pages takes
    /// what there is and keeps its place with the rest. It may pass one that needs a whole chunk,
    /// which has asked for its pages and could not use the slack.
    pub(crate) fn next(&mut self, slack: Pages) -> Option<Reservation> {
        let fits = |entry: &Entry| match entry.need {
            Need::Chunk if slack >= Pages::CHUNK => true,
            Need::Chunk => entry.accepts_pages && slack > Pages::ZERO,
            Need::Page => slack > Pages::ZERO,
        };
        let at = self.order.iter().position(|chunk| self.entries.get(chunk).is_some_and(fits))?;
        let chunk = *self.order.get(at)?;
        let entry = self.entries.get_mut(&chunk)?;
        let before = entry.need();
        let whole = entry.need == Need::Chunk && slack >= Pages::CHUNK;
        let pages = if whole { entry.pages } else { entry.pages.first(slack) };
        entry.pages = entry.pages.minus(&pages);
        self.faults -= pages.count();
        self.settle(chunk, before);
        Some(Reservation { chunk, pages, reserved: if whole { Pages::CHUNK } else { pages.count() } })
    }

    /// Records that pages of a chunk are present, whatever provided them: no fault waits for them
    /// any more.
    pub(crate) fn served(&mut self, chunk: ChunkNo, pages: impl FnOnce() -> PageSet) {
        let Some(entry) = self.entries.get_mut(&chunk) else { return };
        let before = entry.need();
        let faults = entry.pages.count();
        entry.pages = entry.pages.minus(&pages());
        self.faults = self.faults + entry.pages.count() - faults;
        self.settle(chunk, before);
    }

    /// Updates the sum and the queue after an entry that needed `before` has lost pages.
    fn settle(&mut self, chunk: ChunkNo, before: Pages) {
        let Some(entry) = self.entries.get(&chunk) else { return };
        let left = if entry.pages.is_empty() { Pages::ZERO } else { entry.need() };
        self.need = self.need + left - before;
        if entry.pages.is_empty() {
            self.entries.remove(&chunk);
            self.order.retain(|&waiting| waiting != chunk);
        }
    }

    /// Records that the source has answered: chunks that still wait accept single pages.
    pub(crate) fn accept_pages(&mut self) {
        for entry in self.entries.values_mut() {
            let before = entry.need();
            entry.accepts_pages = true;
            self.need = self.need + entry.need() - before;
        }
    }

    /// Forgets all waiting faults.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
