//! The kernel's `struct iovec`: where I/O reads or writes memory.

/// The address and the length of a piece of memory. It borrows nothing: only [`Buffers`] promises
/// that the memory is there.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct IoVec(libc::iovec);

// SAFETY: an address and a length. Nothing here dereferences the address.
unsafe impl Send for IoVec {}
// SAFETY: as above.
unsafe impl Sync for IoVec {}

impl IoVec {
    /// The `len` bytes from `base`.
    #[must_use]
    pub fn new(base: *mut u8, len: usize) -> Self {
        Self(libc::iovec { iov_base: base.cast(), iov_len: len })
    }

    /// The address of the first byte.
    #[must_use]
    pub fn base(&self) -> *mut u8 {
        self.0.iov_base.cast()
    }

    /// The number of bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks whether a piece is empty")]
    pub fn len(&self) -> usize {
        self.0.iov_len
    }
}

/// Memory that the kernel reads or writes during an I/O.
///
/// # Safety
/// From a call of [`iovecs`](Self::iovecs) until the next call or the drop of the value:
/// - the slice returned stays where it is, also when the value is moved;
/// - the memory that it names stays mapped;
/// - the kernel may read that memory. In a [`Task::Read`](crate::task::Task::Read) it may also
///   write it: no reference to the memory exists, and nothing but volatile or atomic accesses use
///   it.
pub unsafe trait Buffers: Send {
    /// The pieces, in the order of the file. The kernel takes at most 1024.
    fn iovecs(&mut self) -> &[IoVec];
}
