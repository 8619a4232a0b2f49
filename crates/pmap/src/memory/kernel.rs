//! The calls that transitions depend on most. Tests put `defects.rs` in this module's place.

use std::io;

use plimsoll_units::FrameNo;

use super::mmap::{FrameView, Mapping};
use super::pagemap::Pagemap;
use super::uffd::{Access, Uffd};
use super::wake::Wake;
use crate::address::{HostRange, PAGE, PageSet};
use crate::sync::Arc;

/// The kernel's interfaces to one VM's guest RAM. Each method calls its namesake.
pub(crate) struct Kernel {
    pub(super) mapping: Arc<Mapping>,
    pub(super) uffd: Uffd,
    pub(super) pagemap: Pagemap,
}

impl Kernel {
    pub(super) fn new(mapping: Arc<Mapping>, uffd: Uffd, pagemap: Pagemap) -> Self {
        Self { mapping, uffd, pagemap }
    }

    pub(super) fn arm(&self, range: HostRange) -> io::Result<()> {
        self.uffd.arm(range)
    }

    pub(super) fn disarm(&self, range: HostRange) -> io::Result<()> {
        self.uffd.disarm(range)
    }

    pub(super) fn protect(&self, range: HostRange) -> io::Result<()> {
        self.uffd.protect(range)
    }

    pub(super) fn unprotect(&self, range: HostRange) -> io::Result<()> {
        self.uffd.unprotect(range)
    }

    pub(super) fn fill(&self, address: u64, pages: u16, wake: Wake) -> io::Result<u16> {
        self.uffd.fill(address, pages, wake)
    }

    pub(super) fn map_zero(&self, address: u64, wake: Wake) -> io::Result<()> {
        self.uffd.map_zero(address, wake)
    }

    pub(super) fn put(
        &self,
        address: u64,
        content: &[u8; PAGE],
        access: Access,
        wake: Wake,
    ) -> io::Result<()> {
        self.uffd.put(address, content, access, wake)
    }

    pub(super) fn discard(&self, offset: usize, len: usize) -> io::Result<()> {
        self.mapping.discard(offset, len)
    }

    pub(super) fn relocate(&self, from: usize, to: usize, len: usize) -> io::Result<()> {
        self.mapping.relocate(from, to, len)
    }

    pub(super) fn equals(&self, offset: usize, view: &FrameView, frame: FrameNo) -> bool {
        self.mapping.equals(offset, view, frame)
    }

    /// Has the page at `offset`, a frame's mapping that may be written, copied.
    pub(super) fn copy_frame(&self, offset: usize) {
        self.mapping.touch(offset);
    }

    pub(super) fn backed(&self, start: u64) -> io::Result<PageSet> {
        self.pagemap.backed(start)
    }

    pub(super) fn own(&self, start: u64, pages: &PageSet) -> io::Result<PageSet> {
        self.pagemap.own(start, pages)
    }
}
