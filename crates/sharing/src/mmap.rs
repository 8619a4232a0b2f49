//! Arrays in memory of their own (mmap), with huge pages.

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use plimsoll_units::CHUNK_SIZE;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use zerocopy::FromZeros;

/// What a huge page maps.
pub(crate) const HUGE: usize = {
    assert!(CHUNK_SIZE == 2 << 20);
    2 << 20
};

/// An array that begins as zeros and takes memory as it is touched.
///
/// It is not from the allocator, for two reasons. What is looked up at random in gigabytes waits
/// for the processor's page tables longer than for the memory itself unless huge pages map it. And
/// its memory goes back to the host when it is dropped, whatever else the process keeps.
#[derive(Debug)]
pub(crate) struct Zeroed<T> {
    base: NonNull<T>,
    len: usize,
}

// SAFETY: the array is this value's alone, like a Vec.
unsafe impl<T: Send> Send for Zeroed<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Zeroed<T> {}

/// Whether memory is taken in huge pages, where the kernel has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grain {
    /// 4 KiB: for what may stay small.
    Small,
    /// 2 MiB. The first touch of one takes 0.2 ms, for the kernel to clear it; where the host is
    /// itself a virtual machine, and that memory was never used before, 4.5 ms. That is what the
    /// slowest look-up while an index grows waits for: a page of the index and one of a member's
    /// pages, if both begin.
    Huge,
}

impl<T: FromZeros> Zeroed<T> {
    /// `len` values, not none.
    pub(crate) fn new(len: usize, grain: Grain) -> io::Result<Self> {
        const { assert!(align_of::<T>() <= 4096 && !std::mem::needs_drop::<T>()) };
        let bytes = len.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // Room to begin where a huge page can.
        let slack = if grain == Grain::Huge { HUGE } else { 0 };
        let total = bytes.checked_add(slack).ok_or(io::ErrorKind::OutOfMemory)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new anonymous mapping wherever the kernel likes replaces nothing.
        let raw = unsafe { mmap_anonymous(std::ptr::null_mut(), total, access, flags)? };
        let head = if slack == 0 { 0 } else { (raw as usize).next_multiple_of(HUGE) - raw as usize };
        let base = raw.wrapping_byte_add(head);
        trim(raw, head);
        trim(base.wrapping_byte_add(bytes.next_multiple_of(4096)), slack - head);
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let array = Self { base, len };
        if grain == Grain::Huge {
            // SAFETY: the range is ours, and this advice changes no content. A kernel without huge
            // pages refuses it; then everything is only slower.
            unsafe { madvise(array.base.as_ptr().cast(), bytes, Advice::LinuxHugepage) }.ok();
        }
        Ok(array)
    }
}

/// Unmaps slack of a new mapping.
fn trim(start: *mut std::ffi::c_void, len: usize) {
    // The mapping is page-aligned, so what is left of a page at the end is too short to unmap.
    let len = len & !4095;
    if len > 0 {
        // SAFETY: called with the slack before and after the array, which is ours and not used. It
        // costs address space if it stays.
        unsafe { munmap(start, len) }.ok();
    }
}

impl<T> Deref for Zeroed<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the mapping has room for so many values and lives as long as `self`; it is
        // aligned to a page, and zeros are a value (`FromZeros`, at `new`), as is whatever was
        // written since.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Zeroed<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

impl<T> Drop for Zeroed<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, every borrow of it has ended, and the values need no
        // dropping.
        unsafe { munmap(self.base.as_ptr().cast(), self.len * size_of::<T>()) }.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_begin_as_zeros_wherever_they_are() {
        for (len, grain) in
            [(1, Grain::Small), (5000, Grain::Small), (1, Grain::Huge), (1 << 20, Grain::Huge)]
        {
            let mut array = Zeroed::<u32>::new(len, grain).unwrap();
            assert_eq!(array.len(), len);
            assert!(array.iter().all(|word| *word == 0));
            array.fill(7);
            assert_eq!(array[len - 1], 7);
            if grain == Grain::Huge {
                assert_eq!(array.as_ptr() as usize % HUGE, 0);
            }
        }
        assert!(Zeroed::<u64>::new(usize::MAX, Grain::Small).is_err());
        assert!(Zeroed::<u64>::new(usize::MAX / 16, Grain::Huge).is_err());
    }
}
