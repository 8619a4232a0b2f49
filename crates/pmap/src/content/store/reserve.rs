//! The memory behind the store: a reserved range of addresses whose pages come with the first write
//! and go when told.

use std::io;
use std::ops::Range;

use plimsoll_sys::mmap::{Advice, Memory};

use crate::address::PAGE;

/// Bytes that the store uses page by page. Pages never written read as zeros and cost nothing.
#[derive(Debug)]
pub(super) struct Reserve(Memory);

impl Reserve {
    /// Reserves addresses for at least `len` bytes.
    ///
    /// Small pages only, because a huge page would bring memory that is not needed. Out of children
    /// and core dumps, as guest RAM is: it is the same content.
    pub(super) fn new(len: usize) -> io::Result<Self> {
        let memory = Memory::sparse(len, PAGE)?;
        memory.space().keep_secret()?;
        // A kernel without transparent huge pages refuses.
        memory.space().advise(0..memory.space().len(), Advice::SmallPages).ok();
        Ok(Self(memory))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }

    /// Gives whole pages back to the kernel. They read as zeros afterwards.
    pub(super) fn discard(&mut self, range: Range<usize>) {
        if let Err(error) = self.0.discard(range) {
            // The kernel refuses only where memory is locked. The VM then costs the host more than
            // it is charged.
            tracing::error!(%error, "memory of the compression store could not be given back");
        }
    }
}
