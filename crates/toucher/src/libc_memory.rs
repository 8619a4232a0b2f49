//! Anonymous memory from the kernel: `mmap` and `munmap`, so that freeing gives pages back at once.

use std::io;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::AtomicU64;

/// Private anonymous memory of this process, zeroed and unpopulated at first, unmapped on drop.
pub(crate) struct Mapping {
    words: NonNull<u64>,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes (above zero). Pages are taken from the machine on first touch only.
    pub(crate) fn anonymous(len: usize) -> io::Result<Self> {
        Self::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
    }

    /// The same, shared with children made by `fork`.
    pub(crate) fn shared(len: usize) -> io::Result<Self> {
        Self::map(len, libc::MAP_SHARED | libc::MAP_ANONYMOUS)
    }

    fn map(len: usize, flags: i32) -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice overlays nothing of ours.
        let address = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let words = NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mmap gave address zero"))?;
        Ok(Self { words, len })
    }

    /// The memory, as words.
    pub(crate) fn words(&self) -> &[u64] {
        // SAFETY: the mapping is readable, page-aligned, initialised by the kernel, and lives as
        // long as `self`.
        unsafe { slice::from_raw_parts(self.words.as_ptr(), self.len / 8) }
    }

    /// The memory, as words to write.
    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        // SAFETY: as in `words`; `&mut self` makes it the only reference in this process.
        unsafe { slice::from_raw_parts_mut(self.words.as_ptr(), self.len / 8) }
    }

    /// The memory, as bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: as in `words`; any byte is valid.
        unsafe { slice::from_raw_parts(self.words.as_ptr().cast(), self.len) }
    }

    /// The memory, as bytes to write.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `words_mut`; any byte is valid.
        unsafe { slice::from_raw_parts_mut(self.words.as_ptr().cast(), self.len) }
    }

    /// The first words as counters that another process may change at the same time.
    pub(crate) fn counters(&self) -> &[AtomicU64; 2] {
        // SAFETY: the mapping is aligned and at least a page long, and lives as long as `self`;
        // atomics may alias.
        unsafe { &*self.words.as_ptr().cast() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the whole mapping made in `map`, and nothing refers to it any more.
        unsafe { libc::munmap(self.words.as_ptr().cast(), self.len) };
    }
}
