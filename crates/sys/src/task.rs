//! One thing for the kernel to do with a file.

use rustix::fs::FallocateFlags;

use crate::iovec::Buffers;

/// What the kernel is asked to do with the file of a [`Uring`](crate::uring::Uring), or by
/// [`carry_out`](crate::preadv::carry_out). `B` is the memory that it reads or writes.
#[derive(Debug)]
pub enum Task<B> {
    /// Fill memory from the file.
    Read {
        /// Where in the file, in bytes.
        offset: u64,
        /// The memory.
        to: B,
    },
    /// Write memory to the file.
    Write {
        /// Where in the file, in bytes.
        offset: u64,
        /// The memory.
        from: B,
    },
    /// Make written data durable (`fdatasync`).
    Sync,
    /// Change which blocks the file has (`fallocate`).
    Allocate {
        /// How.
        flags: FallocateFlags,
        /// Where in the file, in bytes.
        offset: u64,
        /// How many bytes.
        length: u64,
    },
}

impl<B: Buffers> Task<B> {
    /// The memory of a read or a write.
    pub fn into_buffers(self) -> Option<B> {
        match self {
            Self::Read { to: buffers, .. } | Self::Write { from: buffers, .. } => Some(buffers),
            Self::Sync | Self::Allocate { .. } => None,
        }
    }
}

/// Kinds of [`Task`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`Task::Read`].
    Read,
    /// [`Task::Write`].
    Write,
    /// [`Task::Sync`].
    Sync,
    /// [`Task::Allocate`].
    Allocate,
}
