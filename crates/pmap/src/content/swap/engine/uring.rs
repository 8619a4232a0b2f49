//! An io_uring for the swap file.
//!
//! Like the disk's it is restricted, here to reading and writing this one file: a guest that has
//! broken into the VMM cannot use it to get around the seccomp filter.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::register::Restriction;
use io_uring::squeue::Flags;
use io_uring::types::Fixed;
use io_uring::{IoUring, opcode};

use super::{DEPTH, Ended};
use crate::content::swap::event::Event;
use crate::content::swap::task::Task;

/// The file's number in the ring.
const FILE: Fixed = Fixed(0);

/// The ring, and the tasks that the kernel works on: their buffers stay theirs until they end.
pub(in crate::content::swap) struct Uring {
    ring: IoUring,
    tasks: Vec<Option<Flight>>,
    /// Places of `tasks` that are empty.
    empty: Vec<usize>,
}

struct Flight {
    task: Task,
    /// What the kernel may look at until the task has ended.
    _iovecs: Vec<libc::iovec>,
}

// SAFETY: the addresses in a task's list point into buffers that the task owns, and it may move
// between threads.
unsafe impl Send for Uring {}

impl Uring {
    /// Sets up a ring for `file` that signals `event` whenever a task has ended.
    ///
    /// # Errors
    /// The kernel has no io_uring, forbids it, or is older than restrictions (5.10).
    pub(in crate::content::swap) fn new(file: &File, event: &Event) -> io::Result<Self> {
        let entries = u32::try_from(DEPTH).map_err(io::Error::other)?;
        let ring = IoUring::builder().setup_r_disabled().dontfork().build(entries)?;
        let submitter = ring.submitter();
        submitter.register_files(&[file.as_raw_fd()])?;
        submitter.register_eventfd(event.as_fd().as_raw_fd())?;
        let fixed_file = Flags::FIXED_FILE.bits();
        submitter.register_restrictions(&mut [
            Restriction::sqe_op(opcode::Readv::CODE),
            Restriction::sqe_op(opcode::Writev::CODE),
            Restriction::sqe_flags_allowed(fixed_file),
            Restriction::sqe_flags_required(fixed_file),
        ])?;
        submitter.register_enable_rings()?;
        Ok(Self { ring, tasks: (0..DEPTH).map(|_| None).collect(), empty: (0..DEPTH).collect() })
    }

    /// Takes a task; the kernel learns of it at the next [`commit`](Self::commit).
    pub(super) fn submit(&mut self, mut task: Task) {
        let iovecs = task.iovecs();
        let count = u32::try_from(iovecs.len()).expect("a task has few pages");
        let entry = if task.is_write() {
            opcode::Writev::new(FILE, iovecs.as_ptr(), count).offset(task.offset()).build()
        } else {
            opcode::Readv::new(FILE, iovecs.as_ptr(), count).offset(task.offset()).build()
        };
        let place = self.empty.pop().expect("no more tasks are in flight than the ring has places");
        self.tasks[place] = Some(Flight { task, _iovecs: iovecs });
        // SAFETY: the list of buffers and the buffers themselves belong to the task, which stays in
        // its place until the kernel says that it has ended; `Drop` waits for that.
        let pushed = unsafe { self.ring.submission().push(&entry.user_data(place as u64)) };
        pushed.expect("the ring has a place for every task");
    }

    /// Hands to the kernel what was submitted.
    pub(super) fn commit(&mut self) -> io::Result<()> {
        if self.ring.submission().is_empty() {
            return Ok(());
        }
        self.ring.submit().map(|_| ())
    }

    pub(super) fn ended(&mut self) -> Option<Ended> {
        let completion = self.ring.completion().next()?;
        let place = usize::try_from(completion.user_data()).expect("what was submitted had a place");
        let flight = self.tasks[place].take().expect("a task ends once");
        self.empty.push(place);
        let result = completion.result();
        Some((flight.task, usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))))
    }

    /// Asks the ring for something else than it is for, and returns the error that it answers.
    #[cfg(test)]
    pub(in crate::content::swap) fn try_forbidden(mut self) -> Option<i32> {
        let entry = opcode::Nop::new().build();
        // SAFETY: the entry names no memory.
        unsafe { self.ring.submission().push(&entry) }.unwrap();
        self.ring.submit_and_wait(1).unwrap();
        let result = self.ring.completion().next().unwrap().result();
        (result < 0).then_some(-result)
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        while self.empty.len() < DEPTH {
            while self.ended().is_some() {}
            if self.empty.len() < DEPTH && self.ring.submit_and_wait(1).is_err() {
                // The kernel is short of memory, or interrupted: the tasks go on, and giving their
                // memory up is not an option.
                std::thread::yield_now();
            }
        }
    }
}

impl fmt::Debug for Uring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Uring")
            .field("in_flight", &(DEPTH - self.empty.len()))
            .finish_non_exhaustive()
    }
}
