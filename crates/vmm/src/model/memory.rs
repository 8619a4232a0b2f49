use std::collections::BTreeMap;

use plimsoll_pmap::PpnRange;
use plimsoll_units::{CHUNK_PAGES, Pages, Ppn};

/// What the model guest does with one of its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Free, and known to have nothing behind it.
    Clean,
    /// Free, and used before.
    Free,
    /// Holds a pattern.
    Taken,
    /// Holds page cache: dropped where no page is free.
    Cached,
    /// In the balloon.
    Ballooned,
}

/// The model guest's account of its pages: its page allocator and its balloon driver's list.
#[derive(Debug)]
pub(super) struct Memory {
    pages: Vec<(Ppn, Use)>,
    counts: BTreeMap<u8, u64>,
    /// Where the search for a free page begins: pages are taken upwards.
    cursor: usize,
    balloon: Vec<usize>,
    /// Times that an allocation found nothing.
    pub(super) oom_kills: u64,
}

impl Memory {
    /// All of guest RAM, free.
    pub(super) fn new(regions: &[PpnRange]) -> Self {
        let pages: Vec<_> = regions
            .iter()
            .flat_map(|range| (range.start.0..range.start.0 + range.pages.0).map(|n| (Ppn(n), Use::Clean)))
            .collect();
        let counts = BTreeMap::from([(Use::Clean as u8, pages.len() as u64)]);
        Self { pages, counts, cursor: 0, balloon: Vec::new(), oom_kills: 0 }
    }

    fn count(&self, of: Use) -> u64 {
        self.counts.get(&(of as u8)).copied().unwrap_or(0)
    }

    fn set(&mut self, at: usize, to: Use) {
        let from = std::mem::replace(&mut self.pages[at].1, to);
        *self.counts.entry(from as u8).or_default() -= 1;
        *self.counts.entry(to as u8).or_default() += 1;
    }

    /// Guest RAM.
    pub(super) fn total(&self) -> Pages {
        Pages(self.pages.len() as u64)
    }

    /// Pages that are free.
    pub(super) fn free(&self) -> Pages {
        Pages(self.count(Use::Clean) + self.count(Use::Free))
    }

    /// Pages of page cache.
    pub(super) fn cached(&self) -> Pages {
        Pages(self.count(Use::Cached))
    }

    /// Pages that programs could have without giving anything up.
    pub(super) fn available(&self) -> Pages {
        self.free() + self.cached()
    }

    /// Pages in the balloon.
    pub(super) fn ballooned(&self) -> Pages {
        Pages(self.balloon.len() as u64)
    }

    /// Takes up to `most` pages: free ones, then page cache; fewer if fewer are left.
    pub(super) fn allocate(&mut self, most: usize) -> Vec<usize> {
        self.take_available(most, Use::Taken)
    }

    /// Takes up to `most` free pages and drops no page cache for them.
    pub(super) fn take_free(&mut self, most: usize) -> Vec<usize> {
        self.take(most, Use::Taken, &[Use::Clean, Use::Free])
    }

    /// Makes pages that were taken page cache.
    pub(super) fn cache(&mut self, pages: impl IntoIterator<Item = usize>) {
        for at in pages {
            self.set(at, Use::Cached);
        }
    }

    fn take_available(&mut self, most: usize, to: Use) -> Vec<usize> {
        let mut taken = self.take(most, to, &[Use::Clean, Use::Free]);
        taken.extend(self.take(most - taken.len(), to, &[Use::Cached]));
        taken
    }

    /// Takes up to `most` pages with one of the uses `of`.
    fn take(&mut self, most: usize, to: Use, of: &[Use]) -> Vec<usize> {
        let mut taken = Vec::new();
        for _ in 0..self.pages.len() {
            if taken.len() == most || of.iter().all(|of| self.count(*of) == 0) {
                break;
            }
            let at = self.cursor;
            self.cursor = (at + 1) % self.pages.len();
            if of.contains(&self.pages[at].1) {
                self.set(at, to);
                taken.push(at);
            }
        }
        taken
    }

    /// Gives pages back to the allocator.
    pub(super) fn release(&mut self, pages: impl IntoIterator<Item = usize>) {
        for at in pages {
            self.set(at, Use::Free);
        }
    }

    /// Puts up to `most` pages into the balloon: free ones, then page cache.
    pub(super) fn inflate(&mut self, most: usize) -> Vec<Ppn> {
        let taken = self.take_available(most, Use::Ballooned);
        self.balloon.extend(&taken);
        taken.iter().map(|at| self.pages[*at].0).collect()
    }

    /// Takes up to `most` pages out of the balloon.
    pub(super) fn deflate(&mut self, most: usize) -> Vec<Ppn> {
        let keep = self.balloon.len().saturating_sub(most);
        let popped = self.balloon.split_off(keep);
        for at in &popped {
            self.set(*at, Use::Clean);
        }
        popped.iter().map(|at| self.pages[*at].0).collect()
    }

    /// Returns whole free chunks with pages that were used before, for free page reporting, and
    /// marks them as clean.
    pub(super) fn report(&mut self) -> Vec<PpnRange> {
        if self.count(Use::Free) < CHUNK_PAGES {
            return Vec::new();
        }
        let chunk = Pages::CHUNK;
        let per_chunk = usize::try_from(chunk.0).unwrap_or(usize::MAX);
        let mut reported = Vec::new();
        for first in (0..self.pages.len()).step_by(per_chunk) {
            let uses = self.pages[first..first + per_chunk].iter().map(|(_, u)| *u);
            let all_free = uses.clone().all(|u| matches!(u, Use::Clean | Use::Free));
            if all_free && uses.clone().any(|u| u == Use::Free) {
                reported.push(PpnRange::new(self.pages[first].0, chunk));
                (first..first + per_chunk).for_each(|at| self.set(at, Use::Clean));
            }
        }
        reported
    }

    /// The page's number.
    pub(super) fn ppn(&self, at: usize) -> Ppn {
        self.pages[at].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        Memory::new(&[PpnRange::new(Ppn(0), Pages(1024)), PpnRange::new(Ppn(1 << 20), Pages(512))])
    }

    #[test]
    fn a_page_has_one_use_at_a_time() {
        let mut memory = memory();
        let taken = memory.allocate(700);
        let ballooned = memory.inflate(10_000);
        assert_eq!((taken.len(), ballooned.len()), (700, 836));
        assert_eq!(memory.free(), Pages::ZERO);
        assert!(memory.allocate(1).is_empty());
        assert!(taken.iter().all(|at| !ballooned.contains(&memory.ppn(*at))));
        assert_eq!(memory.deflate(36).len(), 36);
        memory.release(taken);
        assert_eq!(memory.free(), Pages(736));
        assert_eq!(memory.ballooned(), Pages(800));
        assert_eq!(memory.total(), Pages(1536));
    }

    #[test]
    fn page_cache_is_available_and_goes_after_free_pages() {
        let mut memory = memory();
        let pages = memory.take_free(1000);
        memory.cache(pages);
        assert_eq!(
            (memory.free(), memory.cached(), memory.available()),
            (Pages(536), Pages(1000), Pages(1536))
        );
        assert!(memory.report().is_empty(), "page cache is not free");
        assert_eq!(memory.inflate(500).len(), 500);
        assert_eq!((memory.free(), memory.cached()), (Pages(36), Pages(1000)));
        assert_eq!(memory.allocate(100).len(), 100);
        assert_eq!((memory.free(), memory.cached()), (Pages::ZERO, Pages(936)));
        assert!(memory.take_free(1).is_empty(), "new page cache does not push out old");
        assert_eq!(memory.inflate(2000).len(), 936);
        assert_eq!(memory.available(), Pages::ZERO);
    }

    #[test]
    fn whole_chunks_that_were_used_are_reported_once() {
        let mut memory = memory();
        let taken = memory.allocate(600);
        assert!(memory.report().is_empty());
        memory.release(taken);
        let chunk = Pages::CHUNK;
        assert_eq!(memory.report(), [PpnRange::new(Ppn(0), chunk), PpnRange::new(Ppn(512), chunk)]);
        assert!(memory.report().is_empty());
    }
}
