#[cfg(test)]
mod tests;

use std::ops::Range;
use std::vec::IntoIter;

use plimsoll_units::{CHUNK_PAGES, PAGE_SIZE, PageNo, Pages, Ppn};

use crate::error::Error;
use plimsoll_units::{PageSet, Slot};

/// A run of guest-physical pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PpnRange {
    /// The first page.
    pub start: Ppn,
    /// How many pages follow, the first included.
    pub pages: Pages,
}

impl PpnRange {
    /// The single page `ppn`.
    pub fn page(ppn: Ppn) -> Self {
        Self { start: ppn, pages: Pages(1) }
    }

    /// The run of `pages` pages from `start` on.
    pub fn new(start: Ppn, pages: Pages) -> Self {
        Self { start, pages }
    }

    fn end(self) -> u64 {
        self.start.0.saturating_add(self.pages.0)
    }
}

/// A chunk's place in the mapping: the regions' chunks one after the other, without the holes
/// between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChunkNo(pub(crate) usize);

/// A page's place in the mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) chunk: ChunkNo,
    pub(crate) slot: Slot,
}

impl Place {
    /// The page that a source of frames knows as `page`.
    pub(crate) fn of_page_no(page: PageNo) -> Self {
        Self::of(page.0.into())
    }

    /// The page `index` pages into the mapping.
    pub(crate) fn of(index: u64) -> Self {
        let chunk = usize::try_from(index / CHUNK_PAGES).expect("pages of the mapping fit its address space");
        let slot = (index % CHUNK_PAGES) as Slot;
        Self { chunk: ChunkNo(chunk), slot }
    }

    /// How many pages into the mapping it is.
    pub(crate) fn index(self) -> u64 {
        self.chunk.0 as u64 * CHUNK_PAGES + u64::from(self.slot)
    }
}

/// The number under which a page is known to a source of frames: it does not count holes.
#[expect(clippy::cast_possible_truncation, reason = "2^32 pages are 16 TiB, more than a VM has")]
pub(crate) fn page_no(chunk: ChunkNo, slot: Slot) -> PageNo {
    PageNo(Place { chunk, slot }.index() as u32)
}

/// Pages of the mapping, cut at the ends of chunks, as (chunk, first page, length).
pub(crate) fn pages_by_chunk(pages: Range<usize>) -> impl Iterator<Item = (ChunkNo, Slot, Slot)> {
    let (mut next, end) = (pages.start as u64, pages.end as u64);
    std::iter::from_fn(move || {
        let left = end.checked_sub(next).filter(|left| *left > 0)?;
        let Place { chunk: no, slot } = Place::of(next);
        let pages = (CHUNK_PAGES - u64::from(slot)).min(left);
        next += pages;
        #[expect(clippy::cast_possible_truncation, reason = "at most a chunk")]
        let pages = pages as Slot;
        Some((no, slot, pages))
    })
}

/// Where the guest sees which part of the mapping.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    regions: Vec<Placed>,
    pages: Pages,
}

/// A region of guest RAM and the page of the mapping where it starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) range: PpnRange,
    pub(crate) first: u64,
}

impl Layout {
    /// Lays `regions` out one after the other. They must be in order, apart, and made of whole,
    /// aligned chunks.
    pub(crate) fn new(regions: &[PpnRange]) -> Result<Self, Error> {
        let mut layout = Self { regions: Vec::new(), pages: Pages::ZERO };
        let mut last_end = 0;
        for (index, &range) in regions.iter().enumerate() {
            let refuse = |problem| Error::Layout { index, start: range.start, pages: range.pages, problem };
            if range.pages == Pages::ZERO {
                return Err(refuse("it is empty"));
            }
            if !range.start.0.is_multiple_of(CHUNK_PAGES) || !range.pages.0.is_multiple_of(CHUNK_PAGES) {
                return Err(refuse("start and length must be multiples of 2 MiB"));
            }
            if range.end().checked_mul(PAGE_SIZE).is_none_or(|end| end > MAX_GUEST_ADDRESS) {
                return Err(refuse("it ends above the 52 bits of a guest-physical address"));
            }
            if range.start.0 < last_end {
                return Err(refuse("regions must be in order and must not overlap"));
            }
            last_end = range.end();
            layout.regions.push(Placed { range, first: layout.pages.0 });
            layout.pages += range.pages;
        }
        if layout.regions.is_empty() { Err(Error::NoRam) } else { Ok(layout) }
    }

    pub(crate) fn pages(&self) -> Pages {
        self.pages
    }

    pub(crate) fn chunks(&self) -> usize {
        usize::try_from(self.pages.0 / CHUNK_PAGES).expect("the mapping fits the address space")
    }

    /// All chunks, in order.
    pub(crate) fn chunk_numbers(&self) -> impl Iterator<Item = ChunkNo> + use<> {
        (0..self.chunks()).map(ChunkNo)
    }

    pub(crate) fn regions(&self) -> &[Placed] {
        &self.regions
    }

    /// The byte of the mapping behind guest-physical `address`, where `len` bytes from there are
    /// RAM of one region.
    pub(crate) fn offset(&self, address: u64, len: u64) -> Option<usize> {
        let end = address.checked_add(len)?;
        let placed = self.regions.iter().find(|placed| {
            address >= placed.range.start.0 * PAGE_SIZE && end <= placed.range.end() * PAGE_SIZE
        })?;
        let offset = address - placed.range.start.0 * PAGE_SIZE + placed.first * PAGE_SIZE;
        usize::try_from(offset).ok()
    }

    /// The guest page that page `slot` of `chunk` is.
    pub(crate) fn ppn(&self, chunk: ChunkNo, slot: Slot) -> Ppn {
        let index = Place { chunk, slot }.index();
        let placed = self.regions.iter().rev().find(|placed| placed.first <= index);
        let placed = placed.expect("the first region starts at the first page");
        Ppn(placed.range.start.0 + index - placed.first)
    }

    /// Sorts `ranges`, which may be in any order, overlap, and lie anywhere, into one set of pages
    /// for each chunk of RAM that they touch, in order; and counts the pages that are not RAM.
    pub(crate) fn by_chunk(&self, ranges: &[PpnRange]) -> (ChunkSets, Pages) {
        let mut runs = Vec::with_capacity(ranges.len());
        let mut ignored = Pages::ZERO;
        for range in ranges {
            let mut outside = range.pages;
            for placed in &self.regions {
                let start = range.start.0.max(placed.range.start.0);
                let end = range.end().min(placed.range.end());
                if start < end {
                    outside = outside.saturating_sub(Pages(end - start));
                    let first = placed.first + (start - placed.range.start.0);
                    runs.push((first, first + (end - start)));
                }
            }
            ignored = ignored.saturating_add(outside);
        }
        runs.sort_unstable();
        runs.dedup_by(|next, last| {
            let joined = next.0 <= last.1;
            if joined {
                last.1 = last.1.max(next.1);
            }
            joined
        });
        let mut runs = runs.into_iter();
        let current = runs.next();
        (ChunkSets { runs, current }, ignored)
    }
}

/// What x86-64 page tables can name.
const MAX_GUEST_ADDRESS: u64 = 1 << 52;

/// Sets of pages, chunk by chunk, cut from sorted runs as they are asked for: a range over a whole
/// VM costs no more memory than a page.
pub(crate) struct ChunkSets {
    runs: IntoIter<(u64, u64)>,
    current: Option<(u64, u64)>,
}

impl Iterator for ChunkSets {
    type Item = (ChunkNo, PageSet);

    fn next(&mut self) -> Option<Self::Item> {
        let Place { chunk, .. } = Place::of(self.current?.0);
        let chunk_end = (chunk.0 as u64 + 1) * CHUNK_PAGES;
        let mut set = PageSet::EMPTY;
        while let Some((start, end)) = self.current.filter(|run| run.0 < chunk_end) {
            let cut = end.min(chunk_end);
            #[expect(clippy::cast_possible_truncation, reason = "at most a chunk")]
            let len = (cut - start) as Slot;
            set = set.union(&PageSet::span(Place::of(start).slot, len));
            self.current = if cut < end { Some((cut, end)) } else { self.runs.next() };
        }
        Some((chunk, set))
    }
}
