//! Pieces of guest memory as the kernel's `struct iovec`: where asynchronous I/O reads or writes.

use std::sync::Arc;

use plimsoll_sys::iovec::IoVec;

use super::mmap::Mapping;

/// Pieces of guest memory, in order, as the kernel takes them.
#[derive(Debug)]
pub(crate) struct IoVecs {
    pieces: Vec<IoVec>,
    /// What the addresses point into.
    _mapping: Arc<Mapping>,
}

impl IoVecs {
    /// The pieces given as (offset, length) in `mapping`, which must lie in it.
    pub(crate) fn new(mapping: &Arc<Mapping>, pieces: &[(usize, usize)]) -> Self {
        let piece = |&(offset, len): &(usize, usize)| IoVec::new(mapping.host(offset), len);
        Self { pieces: pieces.iter().map(piece).collect(), _mapping: Arc::clone(mapping) }
    }

    pub(crate) fn as_slice(&self) -> &[IoVec] {
        &self.pieces
    }
}
