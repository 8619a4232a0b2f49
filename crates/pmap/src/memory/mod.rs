//! Guest RAM as the kernel sees it: one mapping, armed with userfaultfd, by chunks and runs of
//! pages.
//!
//! [`Memory`] turns chunk and page numbers into system calls. It knows neither page states nor what
//! anything costs: a transition decides what to call, and in which order. All calls about a chunk
//! are made with its lock held.
//!
//! | file | wraps |
//! |---|---|
//! | `mmap.rs` | mmap, mremap, madvise, and access to bytes that a guest may change at any time |
//! | `uffd.rs` | userfaultfd |
//! | `pagemap.rs` | `/proc/self/pagemap` |
//! | `iovec.rs`, `ram.rs` | guest RAM for devices |
//! | `kernel.rs` | the calls that tests replace by defective ones |

#[cfg(test)]
mod defects;
mod iovec;
mod kernel;
#[cfg_attr(all(test, feature = "model-check"), path = "../model_check/mmap.rs")]
mod mmap;
#[cfg_attr(all(test, feature = "model-check"), path = "../model_check/pagemap.rs")]
mod pagemap;
mod ram;
mod relocate;
#[cfg_attr(all(test, feature = "model-check"), path = "../model_check/uffd.rs")]
pub mod uffd;
mod wake;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Once;
use std::time::Duration;

use plimsoll_sys::Event;
use plimsoll_units::{FrameNo, PAGE_SIZE, Ppn};

#[cfg(test)]
use self::defects::Kernel;
pub(crate) use self::iovec::IoVecs;
#[cfg(not(test))]
use self::kernel::Kernel;
pub(crate) use self::mmap::FrameView;
use self::mmap::Mapping;
#[cfg(test)]
pub(crate) use self::pagemap::Pagemap;
pub use self::ram::{GuestRam, RamRegion};
use self::uffd::Uffd;
pub(crate) use self::uffd::{Access, Fault, Ready};
pub(crate) use self::wake::Wake;
use crate::address::{
    CHUNK, ChunkNo, HostRange, Layout, PAGE, PageSet, Place, PpnRange, SPARE_CHUNKS, Slot, is_ragged,
};
use crate::error::Error;
use crate::lock::{Lock, STAGING};
use crate::sync::Arc;
use crate::sync::atomic::AtomicU32;

/// The mapping behind guest RAM, its userfaultfd, and the kernel's view of its pages.
pub(crate) struct Memory {
    layout: Layout,
    kernel: Kernel,
    huge_pages: bool,
    ram: GuestRam,
    /// The chunk behind guest RAM where copies are put together.
    staging: Lock<(), STAGING>,
    /// How many of the chunks for memory set aside have been used since the start.
    spare_chunks: AtomicU32,
}

impl Memory {
    /// Maps and arms `regions`; nothing is present yet.
    pub(crate) fn new(regions: &[PpnRange], uffd: Uffd, huge_pages: bool) -> Result<Self, Error> {
        let layout = Layout::new(regions)?;
        let size = layout.pages().bytes();
        let mapped = usize::try_from(size.0)
            .map_err(io::Error::other)
            .and_then(|len| Mapping::new(len, (SPARE_CHUNKS + 2) * CHUNK, huge_pages));
        let mapping = Arc::new(mapped.map_err(|source| Error::Map { size, source })?);
        let ram = GuestRam::new(&layout, &mapping);
        let pagemap = pagemap::Pagemap::open().map_err(|source| Error::Pagemap { source })?;
        let memory = Self {
            layout,
            kernel: Kernel::new(mapping, uffd, pagemap),
            huge_pages,
            ram,
            staging: Lock::default(),
            spare_chunks: AtomicU32::new(0),
        };
        let action = "register guest RAM";
        memory.arm_all().map_err(|source| Error::Uffd { action, source })?;
        Ok(memory)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether untouched chunks become large where the grant allows.
    pub(crate) fn huge_pages(&self) -> bool {
        self.huge_pages
    }

    pub(crate) fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// The host addresses of guest RAM and of the address space behind it.
    pub(crate) fn range(&self) -> HostRange {
        let mapping = &self.kernel.mapping;
        mapping.range(0, mapping.len() + mapping.spare())
    }

    fn ram_range(&self) -> HostRange {
        self.kernel.mapping.range(0, self.kernel.mapping.len())
    }

    pub(crate) fn chunk_range(&self, no: ChunkNo) -> HostRange {
        self.kernel.mapping.range(no.0 * CHUNK, CHUNK)
    }

    /// The host addresses of `len` pages of a chunk from `first` on.
    fn run_range(&self, no: ChunkNo, (first, len): (Slot, Slot)) -> HostRange {
        let offset = offset(Place { chunk: no, slot: first });
        self.kernel.mapping.range(offset, usize::from(len) * PAGE)
    }

    fn page_address(&self, place: Place) -> u64 {
        self.run_range(place.chunk, (place.slot, 1)).start
    }

    /// The page of guest RAM at a host address.
    pub(crate) fn place_of(&self, address: u64) -> Option<Place> {
        let offset = self.kernel.mapping.offset_of(address)?;
        Some(Place::of((offset / PAGE) as u64))
    }

    pub(crate) fn ppn(&self, place: Place) -> Ppn {
        self.layout.ppn(place.chunk, place.slot)
    }

    /// Pieces of guest RAM, given as (offset, length), for asynchronous I/O.
    pub(crate) fn io_vecs(&self, pieces: &[(usize, usize)]) -> IoVecs {
        IoVecs::new(&self.kernel.mapping, pieces)
    }
}

/// Page faults.
impl Memory {
    /// Waits until there are faults to read, `stop` is readable, or `other` is; for at most
    /// `limit`.
    pub(crate) fn wait(
        &self,
        stop: &Event,
        other: Option<BorrowedFd<'_>>,
        limit: Option<Duration>,
    ) -> io::Result<Ready> {
        self.kernel.uffd.wait(stop, other, limit)
    }

    /// Reads the faults that were sent, without blocking.
    pub(crate) fn read_faults(&self) -> io::Result<Vec<Fault>> {
        self.kernel.uffd.read()
    }

    /// Makes touches of missing pages anywhere in guest RAM ask.
    pub(crate) fn arm_all(&self) -> io::Result<()> {
        self.kernel.arm(self.ram_range())
    }

    /// Makes touches of missing pages of a chunk ask.
    pub(crate) fn arm(&self, no: ChunkNo) -> io::Result<()> {
        self.kernel.arm(self.chunk_range(no))
    }

    /// Makes touches of missing pages of a run ask.
    pub(crate) fn arm_run(&self, no: ChunkNo, run: (Slot, Slot)) -> io::Result<()> {
        self.kernel.arm(self.run_range(no, run))
    }

    /// Arms pages: run by run where they are few, and the chunk at once where they are many.
    pub(crate) fn arm_pages(&self, no: ChunkNo, pages: &PageSet) -> io::Result<()> {
        if is_ragged(pages) {
            return self.arm(no);
        }
        pages.runs().try_for_each(|run| self.arm_run(no, run))
    }

    /// Has the kernel serve a chunk by itself, and wakes threads that wait for its pages.
    pub(crate) fn disarm(&self, no: ChunkNo) -> io::Result<()> {
        self.kernel.disarm(self.chunk_range(no))
    }

    /// Write-protects pages: a write to one asks.
    pub(crate) fn protect(&self, no: ChunkNo, pages: &PageSet) -> io::Result<()> {
        pages.runs().try_for_each(|run| self.kernel.protect(self.run_range(no, run)))
    }

    /// Lets pages be written again, and wakes threads that wait to write them.
    pub(crate) fn unprotect(&self, no: ChunkNo, pages: &PageSet) -> io::Result<()> {
        pages.runs().try_for_each(|run| self.unprotect_run(no, run))
    }

    fn unprotect_run(&self, no: ChunkNo, run: (Slot, Slot)) -> io::Result<()> {
        self.kernel.unprotect(self.run_range(no, run))
    }

    /// Puts up to `pages` pages of zeros, at most [`MAX_RUN`](crate::address::MAX_RUN), at missing
    /// pages of one chunk, and wakes threads that wait for them. Returns how many it put there, at
    /// least one.
    pub(crate) fn fill(&self, place: Place, pages: Slot) -> io::Result<Slot> {
        self.kernel.fill(self.page_address(place), pages, Wake::Waiters)
    }

    /// Maps the kernel's page of zeros at a missing page, and wakes threads that wait for it.
    pub(crate) fn map_zero(&self, place: Place) -> io::Result<()> {
        self.kernel.map_zero(self.page_address(place), Wake::Waiters)
    }

    /// Puts `content` at a missing page, and wakes threads that wait for it.
    pub(crate) fn put(&self, place: Place, content: &[u8; PAGE], access: Access) -> io::Result<()> {
        self.kernel.put(self.page_address(place), content, access, Wake::Waiters)
    }

    /// Lets threads that wait for a page try again.
    pub(crate) fn wake(&self, place: Place) {
        self.wake_run(place.chunk, (place.slot, 1));
    }

    /// Lets threads that wait for one of these pages, or for one between them, try again.
    pub(crate) fn wake_hull(&self, no: ChunkNo, pages: &PageSet) {
        pages.hull().into_iter().for_each(|run| self.wake_run(no, run));
    }

    /// Lets threads that wait for a page of a run try again.
    pub(crate) fn try_wake(&self, no: ChunkNo, run: (Slot, Slot)) -> io::Result<()> {
        self.kernel.uffd.wake(self.run_range(no, run))
    }

    /// The same; an error is only logged.
    pub(crate) fn wake_run(&self, no: ChunkNo, run: (Slot, Slot)) {
        if let Err(error) = self.try_wake(no, run) {
            tracing::error!(%error, "threads that wait for a page cannot be woken");
        }
    }

    /// Lets all threads that wait for a page of guest RAM try again.
    pub(crate) fn wake_all(&self) -> io::Result<()> {
        self.kernel.uffd.wake(self.ram_range())
    }
}

/// Content.
impl Memory {
    /// Gives a run of pages back to the kernel: they are missing afterwards.
    pub(crate) fn discard(&self, no: ChunkNo, (first, len): (Slot, Slot)) -> io::Result<()> {
        self.kernel.discard(offset(Place { chunk: no, slot: first }), usize::from(len) * PAGE)
    }

    /// Gives all of guest RAM back to the kernel.
    pub(crate) fn discard_all(&self) -> io::Result<()> {
        self.kernel.discard(0, self.kernel.mapping.len())
    }

    /// Splits the huge page around `place`, so that pages of it are free once they are discarded.
    pub(crate) fn split_huge_page(&self, place: Place) {
        self.kernel.mapping.split_huge_page(offset(place));
    }

    /// Asks for a huge page in place of a chunk, which must not be armed.
    pub(crate) fn collapse(&self, no: ChunkNo) {
        self.kernel.mapping.collapse(no.0 * CHUNK);
    }

    /// Copies a resident page out of guest RAM.
    pub(crate) fn read_page(&self, place: Place, page: &mut [u8; PAGE]) {
        self.kernel.mapping.read_page(offset(place), page);
    }

    /// Reads bytes at an offset of the mapping, which must be present.
    pub(crate) fn read_at(&self, offset: usize, bytes: &mut [u8]) {
        self.kernel.mapping.read(offset, bytes);
    }

    /// Whether the page at an offset of the mapping, which must be present, holds zeros.
    pub(crate) fn is_zero_at(&self, offset: usize) -> bool {
        self.kernel.mapping.is_zero(offset)
    }

    /// The pages of `pages`, all of which must be resident, that hold zeros.
    pub(crate) fn zeros(&self, no: ChunkNo, pages: &PageSet) -> PageSet {
        let is_zero = |&slot: &Slot| self.is_zero_at(offset(Place { chunk: no, slot }));
        pages.iter().filter(is_zero).collect()
    }

    /// Whether a resident page holds what a frame holds.
    pub(crate) fn equals(&self, place: Place, view: &FrameView, frame: FrameNo) -> bool {
        self.kernel.equals(offset(place), view, frame)
    }

    /// Maps frames from `frame` on over a run of pages. The mapping is not armed.
    pub(crate) fn overlay(
        &self,
        no: ChunkNo,
        (first, len): (Slot, Slot),
        pool: BorrowedFd<'_>,
        frame: FrameNo,
    ) -> io::Result<()> {
        let offset = offset(Place { chunk: no, slot: first });
        let at = u64::from(frame.0) * PAGE_SIZE;
        self.kernel.mapping.overlay(offset, usize::from(len) * PAGE, pool, at)
    }

    /// Makes the page at an offset present and writable, as a write by the guest does. Waits where
    /// the page is armed until it is served.
    pub(crate) fn touch(&self, offset: usize) {
        self.kernel.mapping.touch(offset);
    }

    /// Has the kernel copy a page that is the mapping of a frame and may be written.
    pub(crate) fn copy_frame(&self, place: Place) {
        self.kernel.copy_frame(offset(place));
    }

    /// The pages of a chunk that the kernel backs with something.
    pub(crate) fn backed(&self, no: ChunkNo) -> io::Result<PageSet> {
        self.kernel.backed(self.chunk_range(no).start)
    }

    /// The same for the `chunk`th chunk behind guest RAM.
    pub(crate) fn backed_spare(&self, chunk: usize) -> io::Result<PageSet> {
        let mapping = &self.kernel.mapping;
        self.kernel.backed(mapping.range(mapping.len() + chunk * CHUNK, CHUNK).start)
    }

    /// The same for the chunk that is mapped at `offset`.
    pub(crate) fn backed_at(&self, offset: usize) -> io::Result<PageSet> {
        self.kernel.backed(self.kernel.mapping.range(offset, CHUNK).start)
    }

    /// Those of `pages` that are present and not a frame's.
    pub(crate) fn own(&self, no: ChunkNo, pages: &PageSet) -> io::Result<PageSet> {
        self.kernel.own(self.chunk_range(no).start, pages)
    }

    /// The pages of a chunk that are write-protected.
    pub(crate) fn protected(&self, no: ChunkNo) -> io::Result<PageSet> {
        self.kernel.pagemap.protected(self.chunk_range(no).start)
    }
}

#[cfg(test)]
impl Memory {
    pub(crate) fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// As [`Memory::own`], whatever defect is active.
    #[cfg(feature = "model-check")]
    pub(crate) fn really_own(&self, no: ChunkNo, pages: &PageSet) -> io::Result<PageSet> {
        self.kernel.pagemap.own(self.chunk_range(no).start, pages)
    }

    /// The mapping itself, past all defects.
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.kernel.mapping
    }
}

/// The bytes of the mapping before a page.
pub(crate) fn offset(place: Place) -> usize {
    place.chunk.0 * CHUNK + usize::from(place.slot) * PAGE
}

/// Logs that the kernel refuses a chunk a mapping of its own: once, because a guest can cause it at
/// any rate.
pub(crate) fn warn_of_mappings(error: &io::Error) {
    static LOGGED: Once = Once::new();
    LOGGED.call_once(|| tracing::warn!(%error, "chunks stay small: raise vm.max_map_count"));
}
