//! Private anonymous mappings (mmap).

#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::ptr::NonNull;

/// A page of the processor: what addresses and lengths of mappings are multiples of.
const PAGE: usize = 4096;

/// A range of addresses that belongs to its owner and is unmapped when dropped.
///
/// It gives no access to what is there: an owner that dereferences addresses argues for that
/// itself. Owners that want plain bytes use [`Memory`].
#[derive(Debug)]
pub struct AddressSpace {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to no thread, and this only keeps it.
unsafe impl Send for AddressSpace {}
// SAFETY: as above.
unsafe impl Sync for AddressSpace {}

/// What may be done with the memory of a new [`AddressSpace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: the addresses are only reserved, and count against no limit.
    None,
    /// Reads and writes. A page begins as zeros and takes memory when it is first touched. All of
    /// it counts towards what the kernel lets processes commit.
    ReadWrite,
    /// The same for memory of which only a part will be used: it counts towards nothing.
    Sparse,
}

/// Advice that changes no content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Children do not get the memory.
    NotInChildren,
    /// Core dumps leave the memory out.
    NotInDumps,
    /// Huge pages where the kernel has them.
    HugePages,
    /// No huge pages: one takes more memory than was touched.
    SmallPages,
}

impl AddressSpace {
    /// Maps at least `len` bytes, rounded up to whole pages, at a multiple of `align` bytes, which
    /// must be a power of two.
    ///
    /// # Errors
    /// The process has too little address space left or too many mappings, or `len` is too large.
    ///
    /// # Panics
    /// `align` is no power of two.
    pub fn new(len: usize, align: usize, access: Access) -> io::Result<Self> {
        assert!(align.is_power_of_two(), "an alignment");
        let no_memory = || io::Error::from(io::ErrorKind::OutOfMemory);
        let len = len.max(1).checked_next_multiple_of(PAGE).ok_or_else(no_memory)?;
        // Room to begin at a multiple of `align`.
        let slack = align.saturating_sub(PAGE);
        let padded = len.checked_add(slack).ok_or_else(no_memory)?;
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let (protection, uncounted) = match access {
            Access::None => (libc::PROT_NONE, libc::MAP_NORESERVE),
            Access::ReadWrite => (both, 0),
            Access::Sparse => (both, libc::MAP_NORESERVE),
        };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | uncounted;
        // SAFETY: a new anonymous mapping wherever the kernel likes replaces nothing.
        let raw = unsafe { libc::mmap(std::ptr::null_mut(), padded, protection, flags, -1, 0) };
        if raw == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let head = (raw as usize).next_multiple_of(align) - raw as usize;
        let base = raw.wrapping_byte_add(head);
        trim(raw, head);
        trim(base.wrapping_byte_add(len), slack - head);
        Ok(Self { base: NonNull::new(base.cast()).ok_or_else(no_memory)?, len })
    }

    /// The address of the first byte.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The length in bytes: whole pages, at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Advises the kernel about `range`, in bytes from the first.
    ///
    /// # Errors
    /// The kernel does not know the advice: without transparent huge pages it takes none about
    /// them. Or it has to split a mapping, and the process has too many.
    ///
    /// # Panics
    /// `range` is not within the address space.
    pub fn advise(&self, range: Range<usize>, advice: Advice) -> io::Result<()> {
        self.madvise(
            range,
            match advice {
                Advice::NotInChildren => libc::MADV_DONTFORK,
                Advice::NotInDumps => libc::MADV_DONTDUMP,
                Advice::HugePages => libc::MADV_HUGEPAGE,
                Advice::SmallPages => libc::MADV_NOHUGEPAGE,
            },
        )
    }

    /// Keeps the memory out of children and core dumps: for what is a guest's secret.
    ///
    /// # Errors
    /// As [`advise`](Self::advise).
    pub fn keep_secret(&self) -> io::Result<()> {
        self.advise(0..self.len, Advice::NotInChildren)?;
        self.advise(0..self.len, Advice::NotInDumps)
    }

    fn madvise(&self, range: Range<usize>, advice: libc::c_int) -> io::Result<()> {
        assert!(range.start <= range.end && range.end <= self.len, "a range of the address space");
        let start = self.base.as_ptr().wrapping_add(range.start);
        // SAFETY: the range is ours. The only advice that changes content is `Memory::discard`'s,
        // which has the memory to itself, and to which any content is valid.
        let result = unsafe { libc::madvise(start.cast(), range.len(), advice) };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and every borrow of it has ended.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Unmaps slack of a new mapping, which is whole pages.
fn trim(start: *mut libc::c_void, len: usize) {
    if len > 0 {
        // SAFETY: called with the slack before and after the aligned range, which is ours and not
        // used yet. A refusal costs address space and nothing else.
        unsafe { libc::munmap(start, len) };
    }
}

/// Bytes in a mapping of their own, with one owner. They begin as zeros and take memory when they
/// are first written.
#[derive(Debug)]
pub struct Memory(AddressSpace);

impl Memory {
    /// Maps at least `len` bytes, rounded up to whole pages, at a multiple of `align` bytes, which
    /// must be a power of two.
    ///
    /// # Errors
    /// As [`AddressSpace::new`].
    ///
    /// # Panics
    /// `align` is no power of two.
    pub fn new(len: usize, align: usize) -> io::Result<Self> {
        AddressSpace::new(len, align, Access::ReadWrite).map(Self)
    }

    /// The same for memory of which only a part will be used: see [`Access::Sparse`].
    ///
    /// # Errors
    /// As [`AddressSpace::new`].
    ///
    /// # Panics
    /// `align` is no power of two.
    pub fn sparse(len: usize, align: usize) -> io::Result<Self> {
        AddressSpace::new(len, align, Access::Sparse).map(Self)
    }

    /// Where the bytes are, and advice about them.
    #[must_use]
    pub fn space(&self) -> &AddressSpace {
        &self.0
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is readable for as long as `self` lives, and written only through
        // `&mut self`.
        unsafe { std::slice::from_raw_parts(self.0.base.as_ptr(), self.0.len) }
    }

    /// The bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, writable too, and borrowed by no other.
        unsafe { std::slice::from_raw_parts_mut(self.0.base.as_ptr(), self.0.len) }
    }

    /// Gives whole pages back to the kernel. They read as zeros afterwards.
    ///
    /// # Errors
    /// The memory is locked (`mlock`): it stays as it is.
    ///
    /// # Panics
    /// `range` is not within the memory.
    pub fn discard(&mut self, range: Range<usize>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        self.0.madvise(range, libc::MADV_DONTNEED)
    }
}
