//! Page-aligned memory from mmap, divided into pages that have an owner each.

use crate::sync::Arc;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::address::PAGE;

/// One page of a mapping, and its only owner. It may be moved between threads; the page stays where
/// it is.
#[derive(Debug)]
pub(super) struct MappedPage {
    page: NonNull<[u8; PAGE]>,
    /// What the page is part of.
    _area: Arc<Area>,
}

// SAFETY: the page is anonymous memory that belongs to no thread, and nothing else has a pointer to
// it.
unsafe impl Send for MappedPage {}
// SAFETY: a shared reference only gives shared references to the page's bytes.
unsafe impl Sync for MappedPage {}

/// Maps `count` pages of zeros, which must not be none. They use no memory until they are written.
///
/// They stay out of children and out of core dumps: they will hold guest memory, which is the
/// guest's secret.
pub(super) fn map_pages(count: usize) -> io::Result<Vec<MappedPage>> {
    let area = Arc::new(Area::new(count * PAGE)?);
    let page = |index: usize| {
        let page = NonNull::new(area.base.as_ptr().wrapping_add(index))?;
        Some(MappedPage { page, _area: Arc::clone(&area) })
    };
    (0..count).map(page).collect::<Option<_>>().ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

impl Deref for MappedPage {
    type Target = [u8; PAGE];

    fn deref(&self) -> &Self::Target {
        // SAFETY: the page lies in the area, which stays mapped readable and writable as long as
        // this exists; every page of it has one owner, so that a borrow of the owner is a borrow of
        // the page. Bytes have no alignment.
        unsafe { self.page.as_ref() }
    }
}

impl DerefMut for MappedPage {
    fn deref_mut(&mut self) -> &mut Self::Target {
        // SAFETY: as above, with the only reference to the owner.
        unsafe { self.page.as_mut() }
    }
}

#[derive(Debug)]
struct Area {
    base: NonNull<[u8; PAGE]>,
    len: usize,
}

// SAFETY: the mapping belongs to no thread; this only keeps it.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

impl Area {
    fn new(len: usize) -> io::Result<Self> {
        // SAFETY: a new anonymous mapping wherever the kernel likes replaces nothing.
        let raw = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if raw == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(raw.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let area = Self { base, len };
        area.advise(libc::MADV_DONTDUMP)?;
        area.advise(libc::MADV_DONTFORK)?;
        Ok(area)
    }

    fn advise(&self, advice: i32) -> io::Result<()> {
        // SAFETY: the range is ours, and neither advice changes what it holds.
        let result = unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, advice) };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and every page of it has been dropped.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
