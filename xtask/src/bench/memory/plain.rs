use anyhow::{Context, Result};
use plimsoll_units::{Bytes as Size, CHUNK_SIZE};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, VolatileMemory};

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
        if huge_pages {
            advise(&region, start, len, Advice::HugePage).context("asking for huge pages")?;
        }
        Ok(Self { region, start, len })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Writes to byte `offset` and those after it.
    pub(crate) fn write(&self, offset: usize, value: u64) -> Result<()> {
        self.region.as_volatile_slice().write_obj(value, self.start + offset).context("writing memory")
    }

    /// Gives back `len` bytes from `offset`, whole pages.
    pub(crate) fn discard(&self, offset: usize, len: usize) -> Result<()> {
        advise(&self.region, self.start + offset, len, Advice::DontNeed)
            .with_context(|| format!("giving back {}", Size(len as u64)))
    }
}
