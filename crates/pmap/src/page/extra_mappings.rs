#[cfg(test)]
mod tests;

use crate::address::{PageSet, SLOTS, Slot};

/// The parts of a chunk that are mappings of their own: frames, and pages that were moved out of a
/// frame's mapping. The kernel joins none of them with its neighbours.
#[derive(Debug, Default)]
pub(crate) struct ExtraMappings {
    pages: PageSet,
    /// Pages at which a mapping begins although the page before is in a mapping of its own as well.
    starts: PageSet,
}

impl ExtraMappings {
    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Notes that `len` pages from `first` on are one mapping of their own.
    pub(crate) fn put(&mut self, first: Slot, len: Slot) {
        let run = PageSet::span(first, len);
        self.pages = self.pages.union(&run);
        self.starts = self.starts.minus(&run).union(&PageSet::one(first));
        // The pages behind them may have been one mapping with them until now.
        if first + len < SLOTS {
            self.starts.insert(first + len);
        }
    }

    /// The number of mappings beyond one that the chunk takes at most, with what these cut off
    /// before and behind them.
    pub(crate) fn mappings(&self) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let behind = self.pages.shifted();
        let runs = self.pages.minus(&behind).count();
        let within = self.starts.intersection(&self.pages).intersection(&behind).count();
        2 * runs.0 + within.0
    }
}
