//! Asking the processor for memory that is needed soon (PREFETCHT0, like `_mm_prefetch`).

/// Fetches the cache line of `memory` while the caller continues. Best effort; never an error.
#[inline]
pub(crate) fn prefetch<T>(memory: &T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    // SAFETY: the reference is valid; and this instruction neither faults nor changes anything but
    // caches.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(memory).cast()) };
}
