use std::io;

use plimsoll_pmap::IoGuard;
use rustix::fs::FallocateFlags;

/// One thing for the kernel to do.
#[derive(Debug)]
pub(super) enum Task {
    /// Fill this memory from this offset.
    Read { offset: u64, memory: IoGuard },
    /// Write this memory to this offset.
    Write { offset: u64, memory: IoGuard },
    /// Make written data durable.
    Sync,
    /// Change the file's allocation.
    Allocate { flags: FallocateFlags, offset: u64, length: u64 },
}

/// A task that has ended: the number that it was submitted under, and what the kernel said.
pub(super) type Ended = (u16, io::Result<u32>);
