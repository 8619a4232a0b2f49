//! The kernel's `struct iovec`: where asynchronous I/O reads or writes memory.

use std::sync::Arc;

use super::mmap::Mapping;

/// Pieces of guest memory, in order, as the kernel takes them.
#[derive(Debug)]
pub(crate) struct IoVecs {
    pieces: Vec<libc::iovec>,
    /// What the addresses point into.
    _mapping: Arc<Mapping>,
}

// SAFETY: the addresses point into the mapping, which belongs to no thread and lives as long as
// this does.
unsafe impl Send for IoVecs {}
// SAFETY: as above; a shared reference only copies addresses out.
unsafe impl Sync for IoVecs {}

impl IoVecs {
    /// The pieces given as (offset, length) in `mapping`, which must lie in it.
    pub(crate) fn new(mapping: &Arc<Mapping>, pieces: &[(usize, usize)]) -> Self {
        let piece = |&(offset, len): &(usize, usize)| libc::iovec {
            iov_base: mapping.host(offset).cast(),
            iov_len: len,
        };
        Self { pieces: pieces.iter().map(piece).collect(), _mapping: Arc::clone(mapping) }
    }

    pub(crate) fn as_slice(&self) -> &[libc::iovec] {
        &self.pieces
    }
}
