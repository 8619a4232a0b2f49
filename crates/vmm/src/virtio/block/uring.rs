//! An io_uring for one file.
//!
//! The ring is restricted to reading, writing, syncing and allocating that one file: whoever breaks
//! into the VMM cannot use it to get around the seccomp filter. The filter in turn keeps him from
//! making another.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::register::Restriction;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fixed, FsyncFlags};
use io_uring::{IoUring, opcode};

use super::QUEUE_SIZE;
use super::task::{Ended, Task};

/// The file's number in the ring.
const FILE: Fixed = Fixed(0);

/// The ring, and the tasks that the kernel works on: their memory stays pinned until they end.
pub(super) struct Uring {
    ring: IoUring,
    tasks: Vec<Option<Task>>,
    in_flight: usize,
}

impl Uring {
    /// Sets up a ring for `file`.
    ///
    /// # Errors
    /// The kernel has no io_uring, forbids it, or is older than restrictions (5.10).
    pub(super) fn new(file: &File) -> io::Result<Self> {
        let ring = IoUring::builder().setup_r_disabled().dontfork().build(QUEUE_SIZE.into())?;
        let submitter = ring.submitter();
        submitter.register_files(&[file.as_raw_fd()])?;
        let fixed_file = Flags::FIXED_FILE.bits();
        submitter.register_restrictions(&mut [
            Restriction::sqe_op(opcode::Readv::CODE),
            Restriction::sqe_op(opcode::Writev::CODE),
            Restriction::sqe_op(opcode::Fsync::CODE),
            Restriction::sqe_op(opcode::Fallocate::CODE),
            Restriction::sqe_flags_allowed(fixed_file),
            Restriction::sqe_flags_required(fixed_file),
        ])?;
        submitter.register_enable_rings()?;
        Ok(Self { ring, tasks: (0..QUEUE_SIZE).map(|_| None).collect(), in_flight: 0 })
    }

    pub(super) fn submit(&mut self, tag: u16, task: Task) {
        let slot = &mut self.tasks[usize::from(tag)];
        assert!(slot.is_none(), "a tag names one task in flight");
        let entry = entry(slot.insert(task)).user_data(tag.into());
        // SAFETY: the buffers that the entry names belong to the task's guard, and the task stays
        // in its slot until the kernel says that it has ended; `Drop` waits for that.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("the ring has a place for every tag");
        self.in_flight += 1;
    }

    /// Submits, and waits for `ended` tasks to have ended.
    pub(super) fn commit(&mut self, ended: usize) -> io::Result<()> {
        if ended == 0 && self.ring.submission().is_empty() {
            return Ok(());
        }
        self.ring.submit_and_wait(ended.min(self.in_flight)).map(|_| ())
    }

    pub(super) fn ended(&mut self) -> Option<Ended> {
        let completion = self.ring.completion().next()?;
        let tag = u16::try_from(completion.user_data()).expect("every entry has a tag");
        self.tasks[usize::from(tag)] = None;
        self.in_flight -= 1;
        let result = completion.result();
        Some((tag, u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))))
    }

    /// Asks the ring for something else than it is for, and returns the error that it answers.
    #[cfg(test)]
    pub(super) fn try_forbidden(mut self) -> Option<i32> {
        let entry = opcode::Nop::new().build();
        // SAFETY: the entry names no memory.
        unsafe { self.ring.submission().push(&entry) }.unwrap();
        self.ring.submit_and_wait(1).unwrap();
        let result = self.ring.completion().next().unwrap().result();
        (result < 0).then_some(-result)
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring keeps its descriptor open for as long as it is borrowed here.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            while self.ended().is_some() {}
            if self.in_flight > 0 && self.commit(1).is_err() {
                // The kernel is short of memory, or interrupted: the tasks go on, and giving their
                // memory up is not an option.
                std::thread::yield_now();
            }
        }
    }
}

fn entry(task: &Task) -> Entry {
    let length =
        |memory: &[libc::iovec]| u32::try_from(memory.len()).expect("no more buffers than a queue is long");
    match task {
        Task::Read { offset, memory } => {
            let buffers = memory.iovecs();
            opcode::Readv::new(FILE, buffers.as_ptr(), length(buffers)).offset(*offset).build()
        }
        Task::Write { offset, memory } => {
            let buffers = memory.iovecs();
            opcode::Writev::new(FILE, buffers.as_ptr(), length(buffers)).offset(*offset).build()
        }
        Task::Sync => opcode::Fsync::new(FILE).flags(FsyncFlags::DATASYNC).build(),
        Task::Allocate { flags, offset, length } => {
            let flags = i32::try_from(flags.bits()).expect("the kernel's flags are an int");
            opcode::Fallocate::new(FILE, *length).offset(*offset).mode(flags).build()
        }
    }
}
