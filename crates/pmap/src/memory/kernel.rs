//! The calls that transitions depend on most. Tests put `defects.rs` in this module's place.
//!
//! # What the kernel does with it
//!
//! If part of a huge page is discarded it leaves the resident set at once, but the kernel keeps the
//! memory until the huge page is split. That is asked for when a chunk is broken up, and can fail
//! while a page of it is under device I/O; the kernel then does it when memory is short.
//! [`Inflation`](crate::Inflation) gathers whole chunks, which need no splitting. A small chunk
//! that becomes empty may keep its page table (before Linux 6.14); when it is large again it has
//! small pages until khugepaged collapses it.
//!
//! Each change between armed and unarmed neighbours is one more mapping for the kernel
//! (`vm.max_map_count`). If there are too many, chunks stay small, which the log says once. Pages
//! that are or were shared count with the mappings that they take at most, until their chunk is one
//! mapping again: when it is made large, or all of it was given back. Sharing keeps within a bound
//! on that count. No fault depends on a further mapping: a shared page that is written is copied
//! where it is, and memory that was set aside is copied back if it cannot be moved.

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
