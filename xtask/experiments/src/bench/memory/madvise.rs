//! `madvise` for memory that is reached through volatile accesses only.

use std::io;

use vm_memory::mmap::MmapRegion;

/// What to tell the kernel about a range.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Advice {
    /// Its content is not needed any more.
    DontNeed,
    /// Back it with huge pages.
    HugePage,
    /// Let the kernel merge equal pages.
    Mergeable,
    /// Back it with small pages only.
    NoHugePage,
    /// Take it out of memory, to where it can be brought back from.
    PageOut,
}

/// Gives `advice` for `len` bytes from `offset`, which must lie in `region`.
pub(crate) fn advise(region: &MmapRegion, offset: usize, len: usize, advice: Advice) -> io::Result<()> {
    assert!(offset.checked_add(len).is_some_and(|end| end <= region.size()), "a range of the region");
    let advice = match advice {
        Advice::DontNeed => libc::MADV_DONTNEED,
        Advice::HugePage => libc::MADV_HUGEPAGE,
        Advice::Mergeable => libc::MADV_MERGEABLE,
        Advice::NoHugePage => libc::MADV_NOHUGEPAGE,
        Advice::PageOut => libc::MADV_PAGEOUT,
    };
    // SAFETY: the range lies in the region, which is private and anonymous; no reference points
    // into it, because it gives out volatile slices only, to which any content is valid.
    let result = unsafe { libc::madvise(region.as_ptr().wrapping_add(offset).cast(), len, advice) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
