use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use plimsoll_units::PAGE_SIZE;

use crate::address::{PageSet, SLOTS, Slot, is_ragged};

const ENTRY: usize = 8;
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const PROTECTED: u64 = 1 << 57;
const FILE: u64 = 1 << 61;

/// The kernel's own view of which pages have a backing: `/proc/self/pagemap`.
///
/// Opened when guest memory is made, because a jailed process can open nothing. Page frame numbers
/// are hidden from unprivileged readers; the two bits used here are not.
#[derive(Debug)]
pub(crate) struct Pagemap(File);

impl Pagemap {
    pub(crate) fn open() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// The pages of the chunk at host address `start` that the kernel backs with something: memory,
    /// the shared zero page, the host's swap, or a page on its way between two places.
    pub(crate) fn backed(&self, start: u64) -> io::Result<PageSet> {
        self.pages(start, PRESENT | SWAPPED)
    }

    /// The pages of the chunk at host address `start` that are write-protected through userfaultfd.
    pub(crate) fn protected(&self, start: u64) -> io::Result<PageSet> {
        self.pages(start, PROTECTED)
    }

    /// Those of `pages` of the chunk at host address `start` that are present and not a file's: in
    /// the mapping of a file they are copies of this process.
    pub(crate) fn own(&self, start: u64, pages: &PageSet) -> io::Result<PageSet> {
        // The kernel goes from mapping to mapping: it does not look at what is between a few pages.
        let whole = is_ragged(pages);
        let runs: Vec<_> = if whole { vec![(0, SLOTS)] } else { pages.runs().collect() };
        let mut own = PageSet::EMPTY;
        for (first, len) in runs {
            let entries = self.entries(start, first, len)?;
            let found = (first..).zip(entries).filter(|(_, entry)| entry & (PRESENT | FILE) == PRESENT);
            own = own.union(&found.map(|(slot, _)| slot).collect());
        }
        Ok(own.intersection(pages))
    }

    /// The pages whose entries have any of `bits`.
    fn pages(&self, start: u64, bits: u64) -> io::Result<PageSet> {
        let entries = self.entries(start, 0, SLOTS)?;
        Ok((0..).zip(entries).filter(|(_, entry)| entry & bits != 0).map(|(slot, _)| slot).collect())
    }

    /// The entries of `len` pages from page `first` of the chunk at host address `start` on.
    fn entries(&self, start: u64, first: Slot, len: Slot) -> io::Result<Vec<u64>> {
        let mut bytes = vec![0; ENTRY * usize::from(len)];
        self.0.read_exact_at(&mut bytes, (start / PAGE_SIZE + u64::from(first)) * ENTRY as u64)?;
        Ok(bytes.as_chunks().0.iter().map(|entry| u64::from_ne_bytes(*entry)).collect())
    }
}
