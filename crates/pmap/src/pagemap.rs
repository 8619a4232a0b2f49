use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use plimsoll_units::PAGE_SIZE;

use crate::page_set::{PageSet, SLOTS};

const ENTRY: usize = 8;
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;

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
        let mut entries = [0; ENTRY * SLOTS as usize];
        self.0.read_exact_at(&mut entries, start / PAGE_SIZE * ENTRY as u64)?;
        let mut set = PageSet::EMPTY;
        for (slot, entry) in (0..SLOTS).zip(entries.chunks_exact(ENTRY)) {
            if is_backed(entry) {
                set.insert(slot);
            }
        }
        Ok(set)
    }
}

fn is_backed(entry: &[u8]) -> bool {
    let entry = entry.try_into().map_or(0, u64::from_ne_bytes);
    entry & (PRESENT | SWAPPED) != 0
}
