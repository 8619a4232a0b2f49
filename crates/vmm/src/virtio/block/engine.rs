//! Who carries disk requests out: an io_uring, or the device's own thread.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::preadv;
use super::task::{Ended, Task};
use super::uring::Uring;

/// Carries out tasks.
pub(super) enum Engine {
    /// Side by side.
    Uring(Box<Uring>),
    /// One after the other, at once when submitted.
    Blocking(Blocking),
}

impl Engine {
    /// The engine that needs nothing of the kernel but `preadv` and `pwritev`.
    pub(super) fn blocking(file: Arc<File>) -> Self {
        Self::Blocking(Blocking { file, ended: VecDeque::new() })
    }

    /// Takes a task. `tag` comes back with its end; it is below [`QUEUE_SIZE`](super::QUEUE_SIZE)
    /// and no other task in flight has it. With an io_uring, the kernel learns of the task at the
    /// next [`commit`](Self::commit).
    pub(super) fn submit(&mut self, tag: u16, task: Task) {
        match self {
            Self::Uring(uring) => uring.submit(tag, task),
            Self::Blocking(blocking) => blocking.run(tag, &task),
        }
    }

    /// Hands to the kernel what was submitted.
    ///
    /// # Errors
    /// The kernel takes nothing now; what was submitted stays, for the next call.
    pub(super) fn commit(&mut self) -> io::Result<()> {
        match self {
            Self::Uring(uring) => uring.commit(0),
            Self::Blocking(_) => Ok(()),
        }
    }

    /// Waits until at least one task has ended, where one is in flight.
    ///
    /// # Errors
    /// The kernel cannot wait now.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        match self {
            Self::Uring(uring) => uring.commit(1),
            Self::Blocking(_) => Ok(()),
        }
    }

    /// The next task that has ended. Its memory is no longer pinned.
    pub(super) fn ended(&mut self) -> Option<Ended> {
        match self {
            Self::Uring(uring) => uring.ended(),
            Self::Blocking(blocking) => blocking.ended.pop_front(),
        }
    }

    /// Readable when a task has ended; `None` where tasks end as they are submitted.
    pub(super) fn source(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Uring(uring) => Some(uring.as_fd()),
            Self::Blocking(_) => None,
        }
    }
}

/// Carries tasks out on the calling thread.
pub(super) struct Blocking {
    file: Arc<File>,
    ended: VecDeque<Ended>,
}

impl Blocking {
    fn run(&mut self, tag: u16, task: &Task) {
        let result = match task {
            Task::Read { offset, memory } => preadv::read(&self.file, memory, *offset),
            Task::Write { offset, memory } => preadv::write(&self.file, memory, *offset),
            Task::Sync => self.file.sync_data().map(|()| 0),
            Task::Allocate { flags, offset, length } => {
                rustix::fs::fallocate(&self.file, *flags, *offset, *length).map(|()| 0).map_err(Into::into)
            }
        };
        self.ended.push_back((tag, result));
    }
}
