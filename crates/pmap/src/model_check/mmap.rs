//! What `mmap.rs` is in production, on the model's kernel.

use std::io;

use std::os::fd::BorrowedFd;

use plimsoll_units::FrameNo;
use vm_memory::VolatileSlice;

use crate::address::{CHUNK, HostRange, PAGE};
use crate::model_check::kernel::{BASE, kernel};

/// The model's mapping of guest RAM.
#[derive(Debug)]
pub(crate) struct Mapping {
    len: usize,
    spare: usize,
}

/// Most spare address space. Sampling reserves places for a thousand chunks, of which the model can
/// use but two, behind two for pages; the last two chunks are [`Mapping::blank`] and
/// [`Mapping::staging`].
const MOST_SPARE: usize = 6 * CHUNK;

impl Mapping {
    pub(crate) fn new(len: usize, spare: usize, _huge_pages: bool) -> io::Result<Self> {
        let spare = spare.min(MOST_SPARE);
        kernel().map(len + spare);
        Ok(Self { len, spare })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn spare(&self) -> usize {
        self.spare
    }

    /// Where byte `offset` would be: there is nothing.
    pub(crate) fn host(&self, offset: usize) -> *mut u8 {
        std::ptr::without_provenance_mut(BASE + offset)
    }

    pub(crate) fn range(&self, offset: usize, len: usize) -> HostRange {
        HostRange { start: (BASE + offset) as u64, len: len as u64 }
    }

    pub(crate) fn offset_of(&self, address: u64) -> Option<usize> {
        let offset = usize::try_from(address.checked_sub(BASE as u64)?).ok()?;
        (offset < self.len).then_some(offset)
    }

    pub(crate) fn discard(&self, offset: usize, len: usize) -> io::Result<()> {
        kernel().discard(offset / PAGE..(offset + len) / PAGE);
        Ok(())
    }

    pub(crate) fn relocate(&self, from: usize, to: usize, len: usize) -> io::Result<()> {
        kernel().relocate(from / PAGE..(from + len) / PAGE, to / PAGE)
    }

    pub(crate) fn blank(&self) -> usize {
        self.len + self.spare - 2 * CHUNK
    }

    pub(crate) fn staging(&self) -> usize {
        self.len + self.spare - CHUNK
    }

    pub(crate) fn copy(&self, from: usize, to: usize, len: usize) {
        (0..len / PAGE).for_each(|page| kernel().copy(from / PAGE + page, to / PAGE + page));
    }

    pub(crate) fn allow_huge(&self, _offset: usize, _len: usize) {}

    pub(crate) fn overlay(
        &self,
        offset: usize,
        len: usize,
        _file: BorrowedFd<'_>,
        at: u64,
    ) -> io::Result<()> {
        let first = u32::try_from(at / PAGE as u64).map_err(io::Error::other)?;
        kernel().overlay(offset / PAGE..(offset + len) / PAGE, FrameNo(first));
        Ok(())
    }

    pub(crate) fn equals(&self, offset: usize, _pool: &FrameView, frame: FrameNo) -> bool {
        kernel().equals(offset / PAGE, frame)
    }

    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) {
        kernel().load(offset, bytes);
    }

    pub(crate) fn split_huge_page(&self, _offset: usize) {}

    pub(crate) fn collapse(&self, _offset: usize) {}

    pub(crate) fn read_page(&self, offset: usize, page: &mut [u8; PAGE]) {
        kernel().load(offset, page);
    }

    pub(crate) fn is_zero(&self, offset: usize) -> bool {
        let mut page = [0; PAGE];
        self.read_page(offset, &mut page);
        page == [0; PAGE]
    }

    pub(crate) fn touch(&self, offset: usize) {
        kernel().frame(offset / PAGE);
    }

    /// Nothing: the model's processors and devices go to the kernel.
    pub(crate) fn slice(&self, _offset: usize, _len: usize) -> Option<VolatileSlice<'_>> {
        None
    }
}

/// The model's frame pool, which its kernel has.
#[derive(Debug)]
pub(crate) struct FrameView {
    frames: usize,
}

impl FrameView {
    #[expect(clippy::unnecessary_wraps, reason = "as in production")]
    pub(crate) fn new(_pool: BorrowedFd<'_>, frames: usize) -> io::Result<Self> {
        Ok(Self { frames })
    }

    pub(crate) fn has(&self, frame: FrameNo) -> bool {
        (frame.0 as usize) < self.frames
    }
}
