//! Anonymous memory that no pmap knows.

use anyhow::{Context, Result};
use plimsoll_units::{Bytes as Size, CHUNK_SIZE};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, VolatileMemory};

use super::buffer::PageBuffer;
use super::madvise::{Advice, advise};

/// Anonymous memory that starts at a chunk's boundary and is known to no pmap.
pub(crate) struct Plain {
    region: MmapRegion,
    start: usize,
    len: usize,
}

impl Plain {
    /// Maps `chunks` chunks, with huge pages where `huge_pages` and the kernel has them.
    pub(crate) fn new(chunks: u64, huge_pages: bool) -> Result<Self> {
        let chunk = usize::try_from(CHUNK_SIZE)?;
        let len = usize::try_from(chunks)? * chunk;
        let region = MmapRegion::new(len + chunk).context("mapping memory to compare with")?;
        let start = (region.as_ptr() as usize).next_multiple_of(chunk) - region.as_ptr() as usize;
        let advice = if huge_pages { Advice::HugePage } else { Advice::NoHugePage };
        // A kernel without huge pages refuses both.
        advise(&region, start, len, advice).ok();
        Ok(Self { region, start, len })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where it begins.
    pub(crate) fn address(&self) -> u64 {
        self.region.as_ptr() as u64 + self.start as u64
    }

    /// The word at byte `offset`.
    pub(crate) fn read(&self, offset: usize) -> Result<u64> {
        self.region.as_volatile_slice().read_obj(self.start + offset).context("reading memory")
    }

    /// Fills the page at byte `offset`.
    pub(crate) fn fill(&self, offset: usize, page: &PageBuffer) -> Result<()> {
        self.region.as_volatile_slice().write_slice(&page.0, self.start + offset).context("filling a page")
    }

    /// Writes to byte `offset` and those after it.
    pub(crate) fn write(&self, offset: usize, value: u64) -> Result<()> {
        self.region.as_volatile_slice().write_obj(value, self.start + offset).context("writing memory")
    }

    /// Has the kernel swap out what it can of all of it.
    pub(crate) fn page_out(&self) -> Result<()> {
        advise(&self.region, self.start, self.len, Advice::PageOut).context("asking the kernel to swap out")
    }

    /// Lets the kernel merge equal pages of it.
    pub(crate) fn mergeable(&self) -> Result<()> {
        advise(&self.region, self.start, self.len, Advice::Mergeable)
            .context("asking for equal pages to be merged")
    }

    /// Gives back `len` bytes from `offset`, whole pages.
    pub(crate) fn discard(&self, offset: usize, len: usize) -> Result<()> {
        advise(&self.region, self.start + offset, len, Advice::DontNeed)
            .with_context(|| format!("giving back {}", Size(len as u64)))
    }
}
