//! The memory behind the store: a reserved range of addresses whose pages come with the first write
//! and go when told.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use crate::address::PAGE;

/// A private anonymous mapping. Pages never written read as zeros and cost nothing.
#[derive(Debug)]
pub(super) struct Reserve {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to no thread, and nothing else points into it: it is like a
// `Box<[u8]>`.
unsafe impl Send for Reserve {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Reserve {}

impl Reserve {
    /// Reserves addresses for at least `len` bytes.
    ///
    /// Small pages only, because a huge page would bring memory that is not needed. Out of children
    /// and core dumps, as guest RAM is: it is the same content.
    pub(super) fn new(len: usize) -> io::Result<Self> {
        let len = len.max(PAGE).next_multiple_of(PAGE);
        // SAFETY: a new anonymous mapping wherever the kernel likes replaces nothing.
        let raw = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if raw == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(raw.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let reserve = Self { base, len };
        reserve.advise(0..len, libc::MADV_DONTFORK)?;
        reserve.advise(0..len, libc::MADV_DONTDUMP)?;
        // A kernel without transparent huge pages refuses, and has none.
        reserve.advise(0..len, libc::MADV_NOHUGEPAGE).ok();
        Ok(reserve)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is `len` readable bytes for as long as `self` lives, and written only
        // through `&mut self`.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, writable too, and borrowed by no other.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }

    /// Gives whole pages back to the kernel. They read as zeros afterwards.
    pub(super) fn discard(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        if let Err(error) = self.advise(range, libc::MADV_DONTNEED) {
            // The kernel refuses only where memory is locked. The VM then costs the host more than
            // it is charged.
            tracing::error!(%error, "memory of the compression store could not be given back");
        }
    }

    fn advise(&self, range: Range<usize>, advice: i32) -> io::Result<()> {
        assert!(range.start <= range.end && range.end <= self.len, "a range of the mapping");
        let start = self.base.as_ptr().wrapping_add(range.start);
        // SAFETY: the range is ours. The only advice used that changes content, MADV_DONTNEED,
        // comes through `&mut self`, and any content is valid.
        let result = unsafe { libc::madvise(start.cast(), range.len(), advice) };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and every borrow of it has ended.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
