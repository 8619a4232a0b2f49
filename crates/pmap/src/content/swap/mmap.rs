//! Page-aligned memory from mmap, divided into pages that have an owner each.

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use plimsoll_sys::mmap::Memory;

use crate::address::PAGE;
use crate::sync::Arc;

/// One page of a mapping, and its only owner. It may be moved between threads; the page stays where
/// it is.
#[derive(Debug)]
pub(super) struct MappedPage {
    page: NonNull<[u8; PAGE]>,
    /// What the page is part of.
    _area: Arc<Memory>,
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
    // Counted as committed, unlike guest memory: so the kernel keeps the two apart if they are
    // neighbours, and its account of the process tells one from the other.
    let memory = Memory::new(count * PAGE, PAGE)?;
    memory.space().keep_secret()?;
    let area = Arc::new(memory);
    let base = area.space().base().cast::<[u8; PAGE]>();
    let page = |index: usize| {
        let page = NonNull::new(base.as_ptr().wrapping_add(index))?;
        Some(MappedPage { page, _area: Arc::clone(&area) })
    };
    (0..count).map(page).collect::<Option<_>>().ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

impl Deref for MappedPage {
    type Target = [u8; PAGE];

    fn deref(&self) -> &Self::Target {
        // SAFETY: the page lies in the area, which stays mapped readable and writable as long as
        // this exists, and which nothing borrows as a whole. Every page of it has one owner, so
        // that a borrow of the owner is a borrow of the page. Bytes have no alignment.
        unsafe { self.page.as_ref() }
    }
}

impl DerefMut for MappedPage {
    fn deref_mut(&mut self) -> &mut Self::Target {
        // SAFETY: as above, with the only reference to the owner.
        unsafe { self.page.as_mut() }
    }
}
