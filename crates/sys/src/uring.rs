//! An io_uring for one file.
//!
//! The ring is restricted to this file and to the operations that its owner names, so a guest that
//! has broken into the VMM cannot use the ring to get around the seccomp filter. The filter in turn
//! keeps it from making another ring.

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use io_uring::register::Restriction;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fixed, FsyncFlags};
use io_uring::{IoUring, opcode};

use crate::event::Event;
use crate::iovec::{Buffers, IoVec};
use crate::task::{Operation, Task};

/// The file's number in the ring.
const FILE: Fixed = Fixed(0);

/// A ring, and the tasks that the kernel works on. Each task has a label of type `L`, which comes
/// back with its end.
pub struct Uring<L, B: Buffers> {
    ring: IoUring,
    /// A slot for each entry of the ring. A task stays in its slot until the kernel is done.
    slots: Vec<Option<(L, Task<B>)>>,
    empty: Vec<usize>,
}

/// A task that has ended: its label, the task itself, and how many bytes were read or written,
/// perhaps fewer than it has.
pub type Ended<L, B> = (L, Task<B>, io::Result<usize>);

impl<L, B: Buffers> Uring<L, B> {
    /// Sets up a ring for `file` that carries out up to `depth` tasks at a time, of the kinds in
    /// `operations`. It signals `event`, where there is one, whenever a task has ended.
    ///
    /// # Errors
    /// The kernel has no io_uring, forbids it, or is older than restrictions (Linux 5.10).
    pub fn new(
        file: &File,
        depth: usize,
        operations: &[Operation],
        event: Option<&Event>,
    ) -> io::Result<Self> {
        let entries = u32::try_from(depth).map_err(io::Error::other)?;
        let ring = IoUring::builder().setup_r_disabled().dontfork().build(entries)?;
        let submitter = ring.submitter();
        submitter.register_files(&[file.as_raw_fd()])?;
        if let Some(event) = event {
            submitter.register_eventfd(event.as_fd().as_raw_fd())?;
        }
        let allowed = operations.iter().map(|operation| Restriction::sqe_op(code(*operation)));
        let fixed_file = Flags::FIXED_FILE.bits();
        let flags = [Restriction::sqe_flags_allowed(fixed_file), Restriction::sqe_flags_required(fixed_file)];
        submitter.register_restrictions(&mut allowed.chain(flags).collect::<Vec<_>>())?;
        submitter.register_enable_rings()?;
        Ok(Self { ring, slots: (0..depth).map(|_| None).collect(), empty: (0..depth).rev().collect() })
    }

    /// Takes a task. The kernel learns of it at the next [`commit`](Self::commit) or
    /// [`wait`](Self::wait).
    ///
    /// # Panics
    /// As many tasks as the ring carries out at a time have not ended yet.
    pub fn submit(&mut self, label: L, task: Task<B>) {
        let place = self.empty.pop().expect("the ring has a place for every task");
        let (_, task) = self.slots[place].insert((label, task));
        let entry = entry(task).user_data(place as u64);
        // SAFETY: `Buffers` promises that the list of buffers and the buffers themselves stay valid
        // until the task is dropped. It stays in its slot until the kernel says that it has ended;
        // `Drop` waits for that.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("the ring has an entry for every place");
    }

    /// Hands to the kernel what was submitted.
    ///
    /// # Errors
    /// The kernel takes nothing now; what was submitted stays for the next call.
    pub fn commit(&mut self) -> io::Result<()> {
        // The kernel may take some and leave the rest.
        while !self.ring.submission().is_empty() {
            if self.ring.submit()? == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        Ok(())
    }

    /// Hands to the kernel what was submitted, and waits until at least one task has ended. Does
    /// not wait when no task is in flight.
    ///
    /// # Errors
    /// The kernel takes nothing now, or a signal interrupted the wait.
    pub fn wait(&mut self) -> io::Result<()> {
        self.ring.submit_and_wait(self.in_flight().min(1)).map(|_| ())
    }

    /// The next task that has ended.
    pub fn ended(&mut self) -> Option<Ended<L, B>> {
        let completion = self.ring.completion().next()?;
        let place = usize::try_from(completion.user_data()).expect("what was submitted had a place");
        let (label, task) = self.slots[place].take().expect("a task ends once");
        self.empty.push(place);
        let result = completion.result();
        Some((label, task, usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))))
    }

    /// Tasks that were submitted and whose end [`ended`](Self::ended) has not returned yet.
    fn in_flight(&self) -> usize {
        self.slots.len() - self.empty.len()
    }
}

/// Readable when a task has ended.
impl<L, B: Buffers> AsFd for Uring<L, B> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring keeps its descriptor open for as long as it is borrowed here.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl<L, B: Buffers> Drop for Uring<L, B> {
    fn drop(&mut self) {
        while self.in_flight() > 0 {
            while self.ended().is_some() {}
            if self.in_flight() > 0 && self.wait().is_err() {
                // The kernel is short of memory, or interrupted. The tasks go on, and their memory
                // must stay.
                std::thread::yield_now();
            }
        }
    }
}

impl<L, B: Buffers> fmt::Debug for Uring<L, B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Uring").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

fn code(operation: Operation) -> u8 {
    match operation {
        Operation::Read => opcode::Readv::CODE,
        Operation::Write => opcode::Writev::CODE,
        Operation::Sync => opcode::Fsync::CODE,
        Operation::Allocate => opcode::Fallocate::CODE,
    }
}

fn entry<B: Buffers>(task: &mut Task<B>) -> Entry {
    let list = |iovecs: &[IoVec]| {
        // The kernel takes at most 1024 and answers EINVAL to more.
        let count = u32::try_from(iovecs.len()).unwrap_or(u32::MAX);
        (iovecs.as_ptr().cast::<libc::iovec>(), count)
    };
    match task {
        Task::Read { offset, to } => {
            let (iovecs, count) = list(to.iovecs());
            opcode::Readv::new(FILE, iovecs, count).offset(*offset).build()
        }
        Task::Write { offset, from } => {
            let (iovecs, count) = list(from.iovecs());
            opcode::Writev::new(FILE, iovecs, count).offset(*offset).build()
        }
        Task::Sync => opcode::Fsync::new(FILE).flags(FsyncFlags::DATASYNC).build(),
        Task::Allocate { flags, offset, length } => {
            let flags = i32::try_from(flags.bits()).expect("the kernel's flags are an int");
            opcode::Fallocate::new(FILE, *length).offset(*offset).mode(flags).build()
        }
    }
}
