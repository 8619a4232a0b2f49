//! The mapping behind guest RAM: mmap, mremap, madvise, and access to bytes that a guest may change
//! at any time.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use plimsoll_sys::mmap::{self, AddressSpace, Advice};
use plimsoll_units::FrameNo;
use vm_memory::VolatileSlice;

use crate::address::{CHUNK, HostRange, PAGE};

/// One private anonymous mapping for all of a VM's RAM, aligned to chunks so that the kernel can
/// use huge pages. Behind it is *spare* address space, where memory can be set aside: that is still
/// the VM's, but nothing touches it there.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// RAM, and the spare address space. Its bytes are reached only through volatile slices and
    /// atomics, because the guest writes them at the same time in any case.
    space: AddressSpace,
    len: usize,
    spare: usize,
    /// The process has as many mappings as it may have: the kernel makes no more, and moves none.
    #[cfg(test)]
    pub(crate) full: std::sync::atomic::AtomicBool,
}

impl Mapping {
    /// Maps `len` bytes, which must be whole chunks and not zero, and reserves `spare` bytes, also
    /// whole chunks and at least two: the last two are [`Mapping::blank`] and [`Mapping::staging`].
    /// No memory is used until it is touched.
    ///
    /// The mapping stays out of children (a forked page cannot be moved or write-protected safely)
    /// and out of core dumps (guest memory is the guest's secret). With `huge_pages` false the
    /// kernel is told to use none.
    pub(crate) fn new(len: usize, spare: usize, huge_pages: bool) -> io::Result<Self> {
        let total = len.checked_add(spare).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let mapping = Self {
            space: AddressSpace::new(total, CHUNK, mmap::Access::None)?,
            len,
            spare,
            #[cfg(test)]
            full: false.into(),
        };
        mapping.open(0, len)?;
        mapping.open(mapping.blank(), 2 * CHUNK)?;
        mapping.space.keep_secret()?;
        let advice = if huge_pages { Advice::HugePages } else { Advice::SmallPages };
        let (blank, staging) = (mapping.blank(), mapping.staging());
        // A kernel without transparent huge pages refuses both, and then serves small pages, which
        // is correct too.
        mapping.space.advise(0..len, advice).ok();
        mapping.space.advise(blank..staging, advice).ok();
        mapping.space.advise(staging..total, Advice::SmallPages).ok();
        mapping.name(0, len);
        mapping.name(mapping.blank(), CHUNK);
        Ok(mapping)
    }

    /// Guest RAM, without the spare address space.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The address space behind guest RAM.
    pub(crate) fn spare(&self) -> usize {
        self.spare
    }

    /// A chunk behind guest RAM that is never touched: moved anywhere, it is fresh memory.
    pub(crate) fn blank(&self) -> usize {
        self.len + self.spare - 2 * CHUNK
    }

    /// A chunk of small pages where content is put together before it moves to its place.
    pub(crate) fn staging(&self) -> usize {
        self.len + self.spare - CHUNK
    }

    /// The host address of byte `offset`, which must lie in the mapping or in the spare address
    /// space behind it.
    pub(crate) fn host(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= self.len + self.spare);
        self.space.base().as_ptr().wrapping_add(offset)
    }

    /// The host addresses of `len` bytes from `offset`.
    pub(crate) fn range(&self, offset: usize, len: usize) -> HostRange {
        HostRange { start: self.host(offset) as u64, len: len as u64 }
    }

    /// The offset of host address `address`, if that is in the mapping.
    pub(crate) fn offset_of(&self, address: u64) -> Option<usize> {
        let offset = usize::try_from(address.checked_sub(self.space.base().as_ptr() as u64)?).ok()?;
        (offset < self.len).then_some(offset)
    }

    /// Gives whole pages back to the kernel. They read as zeros afterwards, and fault if they are
    /// armed.
    pub(crate) fn discard(&self, offset: usize, len: usize) -> io::Result<()> {
        self.advise(offset, len, libc::MADV_DONTNEED)
    }

    /// Moves whole pages, contents and all, from `from` to `to`. One of the two is spare, and
    /// nothing may be present at `to`. Nothing is present at `from` afterwards. A huge page stays
    /// one, and pinned pages stay pinned.
    ///
    /// All other threads see one step: a touch of either place meanwhile waits for its end. What is
    /// at `to` afterwards is not armed, and `from` is as it was. The kernel refuses if `from` is
    /// more than one mapping, or if there are too many; then nothing has changed.
    ///
    /// UFFDIO_MOVE (Linux 6.8) would be a little faster for a huge page and ten times slower for
    /// 512 small ones, and it breaks the huge page where a fault has left a page table at `to`.
    /// mremap replaces the page table.
    pub(crate) fn relocate(&self, from: usize, to: usize, len: usize) -> io::Result<()> {
        let inside = |offset: usize| offset.checked_add(len).is_some_and(|end| end <= self.len + self.spare);
        assert!(inside(from) && inside(to) && from.abs_diff(to) >= len, "two ranges of the mapping");
        self.has_room()?;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
        // SAFETY: both ranges are ours and stay mapped: this flag keeps the old one, and the new
        // one is replaced in one step. Nothing but volatile slices and atomics, to which any
        // content is valid, points into either.
        let moved = unsafe { libc::mremap(self.host(from).cast(), len, len, flags, self.host(to)) };
        if moved == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Splits the huge page around `offset`, if there is one, so that small pages that are given
    /// back afterwards are free at once. Best effort: a huge page with a page under device I/O
    /// stays whole for now.
    ///
    /// MADV_COLD on part of a huge page does that since Linux 5.4, and nothing else to a page that
    /// is discarded next. MADV_DONTNEED on part of one only takes the page out of the page table:
    /// the kernel would keep the memory until it runs short.
    pub(crate) fn split_huge_page(&self, offset: usize) {
        if let Err(error) = self.advise(offset, PAGE, libc::MADV_COLD) {
            tracing::debug!(%error, "a huge page may stay whole until memory is short");
        }
    }

    /// Asks for a huge page in place of the chunk at `offset`, whose pages must not be armed. Best
    /// effort: if the kernel has none at hand, or the guest writes meanwhile, it makes one later by
    /// itself.
    pub(crate) fn collapse(&self, offset: usize) {
        if let Err(error) = self.advise(offset, CHUNK, libc::MADV_COLLAPSE) {
            tracing::debug!(%error, "a chunk has small pages for now");
        }
    }

    /// Copies bytes within the mapping, or to the spare space behind it. They must be present, and
    /// must not be written meanwhile.
    pub(crate) fn copy(&self, from: usize, to: usize, len: usize) {
        let inside = |offset: usize| offset.checked_add(len).is_some_and(|end| end <= self.len + self.spare);
        assert!(inside(from) && inside(to) && from.abs_diff(to) >= len, "two ranges of the mapping");
        // SAFETY: both ranges are ours, mapped readable and writable where this is used, and apart.
        // No reference points into either: all access is through volatile slices and atomics.
        unsafe { std::ptr::copy_nonoverlapping(self.host(from), self.host(to), len) };
    }

    /// Lets the kernel use huge pages again where it was told not to.
    pub(crate) fn allow_huge(&self, offset: usize, len: usize) {
        // A kernel without transparent huge pages refuses, and then serves small pages.
        self.space.advise(offset..offset + len, Advice::HugePages).ok();
    }

    /// Puts a private mapping of `len` bytes of `file` from `at` on in the place of what is at
    /// `offset`. Reads there see the file, and a write gets a copy of its own. It is not armed.
    ///
    /// All other threads see one step. On error (the process has too many mappings) nothing has
    /// changed.
    pub(crate) fn overlay(&self, offset: usize, len: usize, file: BorrowedFd<'_>, at: u64) -> io::Result<()> {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "a range of guest RAM");
        let at = libc::off_t::try_from(at).map_err(io::Error::other)?;
        self.has_room()?;
        // SAFETY: the range is guest RAM, which stays mapped readable and writable. Nothing but
        // volatile slices and atomics, to which any content is valid, points into it; that the
        // content is the same is the caller's to see to.
        let mapped = unsafe {
            libc::mmap(
                self.host(offset).cast(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                at,
            )
        };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Has the kernel refuse in tests.
    #[cfg(test)]
    fn has_room(&self) -> io::Result<()> {
        let full = self.full.load(Ordering::SeqCst);
        if full { Err(io::Error::from_raw_os_error(libc::ENOMEM)) } else { Ok(()) }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "only test builds refuse")]
    const fn has_room(&self) -> io::Result<()> {
        Ok(())
    }

    /// Whether the page at `offset` holds what frame `frame` holds.
    pub(crate) fn equals(&self, offset: usize, other: &FrameView, frame: FrameNo) -> bool {
        let (own, other) = (self.host(offset), other.page(frame));
        // SAFETY: both are whole pages that are mapped for as long as the borrows live. A write
        // meanwhile makes the result useless and does no other harm; no reference is made to
        // either.
        unsafe { libc::memcmp(own.cast(), other.cast(), PAGE) == 0 }
    }

    /// Whether the page at `offset` holds zeros. It must be present, or the caller waits for it.
    pub(crate) fn is_zero(&self, offset: usize) -> bool {
        static ZEROS: [u8; PAGE] = [0; PAGE];
        assert!(offset + PAGE <= self.len + self.spare, "a page of the mapping");
        // SAFETY: a whole page of ours, mapped for as long as the borrow lives. A write meanwhile
        // makes the result useless and does no other harm; no reference is made to it.
        unsafe { libc::memcmp(self.host(offset).cast(), ZEROS.as_ptr().cast(), PAGE) == 0 }
    }

    /// Copies a page out of guest RAM, or out of the spare space behind it. It must be present, or
    /// the caller waits for it.
    pub(crate) fn read_page(&self, offset: usize, page: &mut [u8; PAGE]) {
        self.read(offset, &mut page[..]);
    }

    /// The same with a part of a page.
    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) {
        let end = offset.checked_add(bytes.len());
        assert!(end.is_some_and(|end| end <= self.len + self.spare), "a part of a page of the mapping");
        // SAFETY: the range is ours, and the mapping lives as long as the borrow of `self`.
        // Volatile access is what memory shared with a guest needs.
        let slice = unsafe { VolatileSlice::new(self.host(offset), bytes.len()) };
        slice.copy_to(bytes);
    }

    /// Makes the page at `offset` present and writable, as a write by the guest does, without
    /// changing it. If the page is armed, waits until the fault is served.
    pub(crate) fn touch(&self, offset: usize) {
        assert!(offset < self.len, "a page of the mapping");
        // SAFETY: the byte lies in the mapping, is always mapped readable and writable, and is only
        // ever accessed by atomic or volatile accesses in this process.
        let byte = unsafe { AtomicU8::from_ptr(self.host(offset)) };
        // Compare-and-exchange always makes a write cycle and never changes a byte here. An
        // idempotent `fetch_or` may be compiled to a plain load, which would map the shared zero
        // page instead.
        byte.compare_exchange(0, 0, Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    /// The bytes from `offset`, or `None` where they are not all in the mapping.
    pub(crate) fn slice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: the range was just checked, and the mapping lives as long as the borrow of
        // `self`. Volatile access is what memory shared with a guest needs.
        Some(unsafe { VolatileSlice::new(self.host(offset), len) })
    }

    fn advise(&self, offset: usize, len: usize, advice: i32) -> io::Result<()> {
        let end = offset.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.len + self.spare), "a range of the mapping");
        // SAFETY: the range is ours. The only advice used that changes content is MADV_DONTNEED,
        // and nothing but volatile slices and atomics, to which any content is valid, points into
        // the mapping.
        let result = unsafe { libc::madvise(self.host(offset).cast(), len, advice) };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Lets a range be used. The rest stays inaccessible, so that it counts against no limit.
    fn open(&self, offset: usize, len: usize) -> io::Result<()> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the range is ours and new.
        let result = unsafe { libc::mprotect(self.host(offset).cast(), len, access) };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Names the mapping in /proc/self/smaps, so that people and tools can tell guest RAM from the
    /// rest.
    fn name(&self, offset: usize, len: usize) {
        let name = c"plimsoll-ram";
        // SAFETY: the kernel copies the name, which is a NUL-terminated string, and only labels our
        // own range.
        let result = unsafe {
            libc::prctl(libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME, self.host(offset), len, name.as_ptr())
        };
        if result == -1 {
            // A kernel built without names for anonymous memory: only the label is missing.
            tracing::debug!("guest RAM stays unnamed in smaps: {}", io::Error::last_os_error());
        }
    }
}

/// A read-only mapping of all of a frame pool, apart from guest RAM.
#[derive(Debug)]
pub(crate) struct FrameView {
    base: NonNull<u8>,
    frames: usize,
}

// SAFETY: the mapping belongs to no thread, and is only ever read.
unsafe impl Send for FrameView {}
// SAFETY: as above.
unsafe impl Sync for FrameView {}

impl FrameView {
    /// Maps the first `frames` pages of `pool`, as far as it is or will become long.
    pub(crate) fn new(pool: BorrowedFd<'_>, frames: usize) -> io::Result<Self> {
        let len = frames.checked_mul(PAGE).filter(|len| *len > 0).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping wherever the kernel likes replaces nothing.
        let raw = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, pool.as_raw_fd(), 0)
        };
        if raw == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(raw.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self { base, frames })
    }

    /// Whether a frame can be in the pool.
    pub(crate) fn has(&self, frame: FrameNo) -> bool {
        (frame.0 as usize) < self.frames
    }

    /// Where a frame is.
    fn page(&self, frame: FrameNo) -> *const u8 {
        assert!(self.has(frame), "a frame of the pool");
        self.base.as_ptr().wrapping_add(frame.0 as usize * PAGE)
    }
}

impl Drop for FrameView {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and every borrow of it has ended.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.frames * PAGE) };
    }
}
