//! A global allocator that counts what it has given out.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counted.
pub(crate) struct Counting;

/// Bytes that are allocated, with what the allocator adds to each: its header, and what it rounds
/// up by.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

/// Bytes of glibc's header.
const HEADER: usize = 8;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes of the heap in use, now.
pub(crate) fn allocated() -> u64 {
    ALLOCATED.load(Ordering::Relaxed) as u64
}

// SAFETY: everything is passed on to the system's allocator as it came; counting changes nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the same contract.
        let block = unsafe { System.alloc(layout) };
        ALLOCATED.fetch_add(size(block), Ordering::Relaxed);
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(size(block), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

/// What `block`, which is allocated or null, takes of the heap.
fn size(block: *mut u8) -> usize {
    if block.is_null() {
        return 0;
    }
    // SAFETY: the system's allocator is malloc, and the block is not freed yet.
    HEADER + unsafe { libc::malloc_usable_size(block.cast()) }
}
