//! What carries disk requests out: an io_uring, the device's own thread, or the threads of an
//! image.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use plimsoll_pmap::IoGuard;
use plimsoll_sys::preadv::carry_out;
use plimsoll_sys::task::Operation;
use plimsoll_sys::uring::Uring;
use rustix::fs::FallocateFlags;

use super::QUEUE_SIZE;
use super::direction::Direction;
use super::task::{Ended, Task};
use super::workers::Workers;

/// A [`Task`] for the kernel to do with a file.
pub(super) type FileTask = plimsoll_sys::task::Task<IoGuard>;

/// Carries out tasks.
pub(super) enum Engine {
    /// Side by side.
    Uring(Box<Uring<u16, IoGuard>>),
    /// One after the other, at once when submitted.
    Blocking(Blocking),
    /// By threads of its own.
    Image(Workers),
}

impl Engine {
    /// An io_uring that reads, writes, syncs and allocates `file`, and does nothing else.
    ///
    /// # Errors
    /// The kernel has no io_uring, forbids it, or is older than restrictions (Linux 5.10).
    pub(super) fn uring(file: &File) -> io::Result<Self> {
        let all = [Operation::Read, Operation::Write, Operation::Sync, Operation::Allocate];
        Ok(Self::Uring(Box::new(Uring::new(file, QUEUE_SIZE.into(), &all, None)?)))
    }

    /// The engine that needs nothing of the kernel but `preadv` and `pwritev`.
    pub(super) fn blocking(file: Arc<File>) -> Self {
        Self::Blocking(Blocking { file, ended: VecDeque::new() })
    }

    /// Takes a task. `tag` comes back with its end. At most [`QUEUE_SIZE`] tasks may be in flight.
    /// With an io_uring, the kernel learns of the task at the next [`commit`](Self::commit).
    pub(super) fn submit(&mut self, tag: u16, task: Task) {
        match self {
            Self::Uring(uring) => uring.submit(tag, task.of_file()),
            Self::Blocking(blocking) => blocking.run(tag, task.of_file()),
            Self::Image(workers) => workers.submit(tag, task),
        }
    }

    /// Hands to the kernel what was submitted.
    ///
    /// # Errors
    /// The kernel takes nothing now; what was submitted stays for the next call.
    pub(super) fn commit(&mut self) -> io::Result<()> {
        match self {
            Self::Uring(uring) => uring.commit(),
            Self::Blocking(_) | Self::Image(_) => Ok(()),
        }
    }

    /// Waits until at least one task has ended, where one is in flight.
    ///
    /// # Errors
    /// The kernel cannot wait now.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        match self {
            Self::Uring(uring) => uring.wait(),
            Self::Blocking(_) => Ok(()),
            Self::Image(workers) => {
                workers.wait();
                Ok(())
            }
        }
    }

    /// The next task that has ended. Its memory is no longer pinned.
    pub(super) fn ended(&mut self) -> Option<Ended> {
        match self {
            Self::Uring(uring) => uring.ended().map(|(tag, _, result)| (tag, result)),
            Self::Blocking(blocking) => blocking.ended.pop_front(),
            Self::Image(workers) => workers.ended(),
        }
    }

    /// Readable when a task has ended; `None` where tasks end as they are submitted.
    pub(super) fn source(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Uring(uring) => Some(uring.as_fd()),
            Self::Blocking(_) => None,
            Self::Image(workers) => Some(workers.as_fd()),
        }
    }
}

impl Task {
    /// This task, done with a raw file.
    fn of_file(self) -> FileTask {
        let keep = FallocateFlags::KEEP_SIZE;
        match self {
            Self::Move { direction: Direction::Read, offset, memory, .. } => {
                FileTask::Read { offset, to: memory }
            }
            Self::Move { direction: Direction::Write, offset, memory, .. } => {
                FileTask::Write { offset, from: memory }
            }
            Self::Sync => FileTask::Sync,
            Self::Discard { offset, length } | Self::Zero { offset, length, unmap: true } => {
                FileTask::Allocate { flags: FallocateFlags::PUNCH_HOLE | keep, offset, length }
            }
            Self::Zero { offset, length, unmap: false } => {
                FileTask::Allocate { flags: FallocateFlags::ZERO_RANGE | keep, offset, length }
            }
        }
    }
}

/// Carries tasks out on the calling thread.
pub(super) struct Blocking {
    file: Arc<File>,
    ended: VecDeque<Ended>,
}

impl Blocking {
    fn run(&mut self, tag: u16, mut task: FileTask) {
        let result = carry_out(&self.file, &mut task);
        self.ended.push_back((tag, result));
    }
}
