//! What `mmap.rs` is in production, on the model's kernel.

use std::io;

use std::os::fd::BorrowedFd;

use plimsoll_units::FrameNo;
use vm_memory::VolatileSlice;

use crate::host_range::{CHUNK, HostRange, PAGE};
use crate::model_check::kernel::{BASE, kernel};

/// The model's mapping of guest RAM.
#[derive(Debug)]
pub(crate) struct Mapping {
    len: usize,
    spare: usize,
}

/// Most places for what is put aside. Sampling reserves a thousand, of which the model can use but a few.
const MOST_SPARE: usize = 4 * CHUNK;

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
        kernel().relocate(from / PAGE..(from + len) / PAGE, to / PAGE);
        Ok(())
    }

    pub(crate) fn blank(&self) -> usize {
        unreachable!("nothing is shared in the model")
    }

    pub(crate) fn staging(&self) -> usize {
        unreachable!("nothing is shared in the model")
    }

    pub(crate) fn copy(&self, _from: usize, _to: usize, _len: usize) {}

    pub(crate) fn allow_huge(&self, _offset: usize, _len: usize) {}

    pub(crate) fn overlay(
        &self,
        _offset: usize,
        _len: usize,
        _file: BorrowedFd<'_>,
        _at: u64,
    ) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn equals(&self, _offset: usize, _other: &FrameView, _frame: FrameNo) -> bool {
        false
    }

    pub(crate) fn read(&self, _offset: usize, _bytes: &mut [u8]) {}

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

/// The model's frame pool: there is none.
#[derive(Debug)]
pub(crate) struct FrameView;

impl FrameView {
    pub(crate) fn new(_pool: BorrowedFd<'_>, _frames: usize) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn has(&self, _frame: FrameNo) -> bool {
        false
    }
}
