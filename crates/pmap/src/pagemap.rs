use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use plimsoll_units::PAGE_SIZE;

use crate::page_set::{PageSet, SLOTS};

const ENTRY: usize = 8;
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const PROTECTED: u64 = 1 << 57;
const FILE: u64 = 1 << 61;

/// The kernel's own view of which pages have a backing: `/proc/self/pagemap`.
///
/// Opened when guest memory is made, because a jailed process can open nothing. Page frame numbers are hidden from
/// unprivileged readers; the two bits used here are not.
#[derive(Debug)]
pub(crate) struct Pagemap(File);

impl Pagemap {
    pub(crate) fn open() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// The pages of the chunk at host address `start` that the kernel backs with something: memory, the shared zero
    /// page, the host's swap, or a page on its way between two places.
    pub(crate) fn backed(&self, start: u64) -> io::Result<PageSet> {
        self.pages(start, PRESENT | SWAPPED)
    }

    /// The pages of the chunk at host address `start` that are write-protected through userfaultfd.
    pub(crate) fn protected(&self, start: u64) -> io::Result<PageSet> {
        self.pages(start, PROTECTED)
    }

    /// The pages of the chunk at host address `start` that are there and no file's: in the mapping of a file they are copies of
    /// this process.
    pub(crate) fn own(&self, start: u64) -> io::Result<PageSet> {
        Ok(self.pages(start, PRESENT)?.minus(&self.pages(start, FILE)?))
    }

    /// The pages whose entries have any of `bits`.
    fn pages(&self, start: u64, bits: u64) -> io::Result<PageSet> {
        let mut entries = [0; ENTRY * SLOTS as usize];
        self.0.read_exact_at(&mut entries, start / PAGE_SIZE * ENTRY as u64)?;
        let has = |entry: &[u8]| entry.try_into().map_or(0, u64::from_ne_bytes) & bits != 0;
        Ok((0..SLOTS)
            .zip(entries.chunks_exact(ENTRY))
            .filter(|(_, entry)| has(entry))
            .map(|(slot, _)| slot)
            .collect())
    }
}
