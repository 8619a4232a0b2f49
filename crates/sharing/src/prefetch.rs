//! Asking the processor for memory that is needed soon (PREFETCHT0, like `_mm_prefetch`).

/// Has the cache line of `memory` fetched while the caller goes on. Best effort, and never wrong.
#[inline]
pub(crate) fn prefetch<T>(memory: &T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    // SAFETY: the reference is valid; and this instruction neither faults nor changes anything but
    // caches.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(memory).cast()) };
}
