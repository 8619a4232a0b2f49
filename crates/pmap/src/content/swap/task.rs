use crate::sync::Arc;

use plimsoll_sys::iovec::IoVec;
use plimsoll_units::PAGE_SIZE;

use super::buffers::Buffer;
use super::slots::SwapSlot;
use crate::address::PAGE;

/// One I/O: adjacent slots, and a buffer for each.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) first: SwapSlot,
    /// The owner of each slot's content.
    pub(super) owners: Vec<u64>,
    pub(super) memory: Memory,
    /// Pages of it that were read or written already.
    pub(super) done: usize,
    /// How often in a row it ended without having moved a page, and without an error that says why.
    pub(super) stalls: u8,
    /// The memory of the part that is not done yet, while an engine has the task.
    iovecs: Vec<IoVec>,
}

#[derive(Debug)]
pub(super) enum Memory {
    Read(Vec<Buffer>),
    /// Shared with a fault that wants a page back before it is written.
    Write(Vec<Arc<Buffer>>),
}

impl Task {
    pub(super) fn new(first: SwapSlot, owners: Vec<u64>, memory: Memory) -> Self {
        Self { first, owners, memory, done: 0, stalls: 0, iovecs: Vec::new() }
    }

    pub(super) fn is_write(&self) -> bool {
        matches!(self.memory, Memory::Write(_))
    }

    /// Pages, done or not.
    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    /// Where in the file what is not done yet begins, in bytes.
    pub(super) fn offset(&self) -> u64 {
        u64::from(self.first.plus(self.done).0) * PAGE_SIZE
    }

    /// The memory of the part that is not done yet, as the kernel takes it. For a read it may be
    /// written only while the engine alone has the task; for a write it may only be read.
    pub(super) fn list_memory(&mut self) -> &[IoVec] {
        self.iovecs.clear();
        match &mut self.memory {
            Memory::Read(buffers) => {
                let pieces = buffers.iter_mut().skip(self.done);
                self.iovecs.extend(pieces.map(|to| IoVec::new(to.as_mut_ptr(), PAGE)));
            }
            Memory::Write(buffers) => {
                let pieces = buffers.iter().skip(self.done);
                self.iovecs.extend(pieces.map(|from| IoVec::new(from.as_ptr().cast_mut(), PAGE)));
            }
        }
        &self.iovecs
    }
}
