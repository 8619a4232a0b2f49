//! Arrays in memory of their own (mmap), with huge pages.

use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use plimsoll_sys::mmap::{Advice, Memory};
use plimsoll_units::CHUNK_SIZE;
use zerocopy::FromZeros;

/// The size of a huge page.
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
    memory: Memory,
    len: usize,
    values: PhantomData<T>,
}

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
    /// `len` values, at least one.
    pub(crate) fn new(len: usize, grain: Grain) -> io::Result<Self> {
        const { assert!(align_of::<T>() <= 4096 && !std::mem::needs_drop::<T>()) };
        let bytes = len.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let memory = Memory::sparse(bytes, if grain == Grain::Huge { HUGE } else { 1 })?;
        if grain == Grain::Huge {
            // A kernel without huge pages refuses; then everything is only slower.
            memory.space().advise(0..bytes, Advice::HugePages).ok();
        }
        Ok(Self { memory, len, values: PhantomData })
    }
}

impl<T> Zeroed<T> {
    fn base(&self) -> NonNull<T> {
        self.memory.space().base().cast()
    }
}

impl<T> Deref for Zeroed<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the memory has room for `len` values and lives as long as `self`; it is
        // page-aligned, and zeros are a value (`FromZeros`, at `new`), as is whatever was written
        // since.
        unsafe { std::slice::from_raw_parts(self.base().as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Zeroed<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.base().as_ptr(), self.len) }
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
