use std::io;

use plimsoll_pmap::IoGuard;

use super::super::ring::Spans;
use super::direction::Direction;

/// One thing to do with the disk.
#[derive(Debug)]
pub(super) enum Task {
    /// Move data between the disk and pinned guest memory.
    Move {
        direction: Direction,
        offset: u64,
        memory: IoGuard,
        /// The same memory, for an image, which copies.
        buffers: Option<Spans>,
    },
    /// Make durable what was written.
    Sync,
    Discard {
        offset: u64,
        length: u64,
    },
    Zero {
        offset: u64,
        length: u64,
        unmap: bool,
    },
}

/// A task that has ended: the number that it was submitted under, and the bytes that were read or
/// written.
pub(super) type Ended = (u16, io::Result<usize>);
