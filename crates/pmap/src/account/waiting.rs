use std::collections::{HashMap, VecDeque};

use plimsoll_units::Pages;

use crate::address::{ChunkNo, PageSet, Place};

/// Faults that wait for a grant, chunk by chunk, in the order in which the chunks began to wait.
///
/// One entry for a chunk, whatever number of its pages is waited for, so the queue is bounded by the VM's size. A
/// thread that gave up (a signal took a vCPU out of its fault) leaves its page behind; serving it wastes a page of the
/// VM's own grant, and nothing else.
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
    /// A whole chunk, to become large; a page where no more is to be had.
    Chunk,
    /// One page.
    Page,
}

/// A chunk whose turn it is: serve `pages` of it with the `reserved` pages, which are charged already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) chunk: ChunkNo,
    pub(crate) pages: PageSet,
    pub(crate) reserved: Pages,
}

#[derive(Debug)]
struct Entry {
    pages: PageSet,
    need: Need,
    /// The source was asked for a whole chunk and has answered with less.
    makes_do: bool,
}

impl Entry {
    fn need(&self) -> Pages {
        if self.need == Need::Chunk && !self.makes_do { Pages::CHUNK } else { self.pages.count() }
    }
}

impl Waiting {
    /// Pages that all who wait need together.
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
            Entry { pages: PageSet::EMPTY, need, makes_do: false }
        });
        let before = if entry.pages.is_empty() { Pages::ZERO } else { entry.need() };
        let faults = entry.pages.count();
        entry.pages.insert(place.slot);
        self.faults = self.faults + entry.pages.count() - faults;
        // The chunk's state may have changed since it began to wait: the latest fault knows it best.
        entry.need = need;
        self.need = self.need + entry.need() - before;
    }

    /// Takes the first chunk that `slack` pages suffice for. One that needs single pages takes what there is and
    /// keeps its place with the rest. It may pass one that needs a whole chunk: that one has asked for it and loses
    /// nothing but the slack it could not use.
    pub(crate) fn next(&mut self, slack: Pages) -> Option<Turn> {
        let fits = |entry: &Entry| match entry.need {
            Need::Chunk if slack >= Pages::CHUNK => true,
            Need::Chunk => entry.makes_do && slack > Pages::ZERO,
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
        Some(Turn { chunk, pages, reserved: if whole { Pages::CHUNK } else { pages.count() } })
    }

    /// Pages of a chunk are there now, whoever provided them: nobody waits for those any more.
    pub(crate) fn served(&mut self, chunk: ChunkNo, pages: impl FnOnce() -> PageSet) {
        let Some(entry) = self.entries.get_mut(&chunk) else { return };
        let before = entry.need();
        let faults = entry.pages.count();
        entry.pages = entry.pages.minus(&pages());
        self.faults = self.faults + entry.pages.count() - faults;
        self.settle(chunk, before);
    }

    /// Brings the sum and the queue up to date with an entry that has fewer pages than when it needed `before`.
    fn settle(&mut self, chunk: ChunkNo, before: Pages) {
        let Some(entry) = self.entries.get(&chunk) else { return };
        let left = if entry.pages.is_empty() { Pages::ZERO } else { entry.need() };
        self.need = self.need + left - before;
        if entry.pages.is_empty() {
            self.entries.remove(&chunk);
            self.order.retain(|&waiting| waiting != chunk);
        }
    }

    /// The source has answered: whoever still waits for a whole chunk makes do with single pages.
    pub(crate) fn make_do(&mut self) {
        for entry in self.entries.values_mut() {
            let before = entry.need();
            entry.makes_do = true;
            self.need = self.need + entry.need() - before;
        }
    }

    /// Forgets all who wait.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(chunk: usize, slot: u16) -> Place {
        Place { chunk: ChunkNo(chunk), slot }
    }

    #[test]
    fn one_page_may_pass_a_chunk_that_does_not_fit() {
        let mut waiting = Waiting::default();
        waiting.push(place(0, 7), Need::Chunk);
        waiting.push(place(1, 8), Need::Page);
        assert_eq!(waiting.need(), Pages(513));
        let turn = waiting.next(Pages(100)).unwrap();
        assert_eq!((turn.chunk, turn.reserved), (ChunkNo(1), Pages(1)));
        assert_eq!(waiting.next(Pages(99)), None);
        assert_eq!(waiting.need(), Pages(512));
    }

    #[test]
    fn after_an_answer_a_chunk_makes_do_with_pages() {
        let mut waiting = Waiting::default();
        for slot in 0..3 {
            waiting.push(place(0, slot), Need::Chunk);
        }
        assert_eq!((waiting.need(), waiting.next(Pages(511))), (Pages(512), None));
        waiting.make_do();
        assert_eq!(waiting.need(), Pages(3));
        assert_eq!(waiting.next(Pages::ZERO), None);
        assert_eq!(waiting.next(Pages(2)).unwrap().pages.count(), Pages(2));
        assert_eq!(waiting.need(), Pages(1));
        assert_eq!(waiting.next(Pages(512)).unwrap().reserved, Pages(512), "a whole chunk after all");
        assert!(waiting.order.is_empty() && waiting.entries.is_empty());
        assert_eq!(waiting.need(), Pages::ZERO);
    }

    proptest! {
        #[test]
        fn nobody_waits_who_could_be_served(
            steps in prop::collection::vec((0usize..4, 0u16..6, any::<bool>(), 0u64..600, 0u8..9), 1..60)
        ) {
            let mut waiting = Waiting::default();
            for (chunk, slot, whole, slack, step) in steps {
                match step {
                    0..4 => waiting.push(place(chunk, slot), if whole { Need::Chunk } else { Need::Page }),
                    4 => waiting.make_do(),
                    5 => waiting.served(ChunkNo(chunk), || PageSet::span(0, slot)),
                    _ => {
                        let turn = waiting.next(Pages(slack));
                        let paid = |turn: &Turn| turn.reserved <= Pages(slack) && !turn.pages.is_empty();
                        prop_assert!(turn.iter().all(paid));
                        let served = |entry: &Entry| {
                            slack >= 512 || slack > 0 && (entry.makes_do || entry.need == Need::Page)
                        };
                        prop_assert!(turn.is_some() || !waiting.entries.values().any(served));
                    }
                }
                prop_assert_eq!(waiting.need(), waiting.entries.values().map(Entry::need).sum());
                prop_assert_eq!(waiting.order.len(), waiting.entries.len());
                let faults: Pages = waiting.entries.values().map(|entry| entry.pages.count()).sum();
                prop_assert_eq!(waiting.faults(), faults.0);
            }
        }
    }

    #[test]
    fn first_come_first_served() {
        let mut waiting = Waiting::default();
        for chunk in [3, 1, 2] {
            waiting.push(place(chunk, 0), Need::Page);
            waiting.push(place(chunk, 0), Need::Page);
        }
        assert_eq!(waiting.need(), Pages(3), "a page is waited for once");
        let order: Vec<_> = std::iter::from_fn(|| waiting.next(Pages(1))).map(|turn| turn.chunk.0).collect();
        assert_eq!(order, [3, 1, 2]);
    }
}
