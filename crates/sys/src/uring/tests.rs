use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FallocateFlags;

use super::*;
use crate::iovec::IoVec;
use crate::mmap::Memory;
use crate::preadv::carry_out;

const PAGE: usize = 4096;
const ALL: [Operation; 4] = [Operation::Read, Operation::Write, Operation::Sync, Operation::Allocate];

/// Memory in two pieces, the second half first.
struct Halves {
    memory: Memory,
    iovecs: Vec<IoVec>,
}

impl Halves {
    fn filled(byte: u8) -> Self {
        let mut memory = Memory::new(2 * PAGE, PAGE).unwrap();
        memory.bytes_mut().fill(byte);
        memory.bytes_mut()[PAGE..].fill(byte + 1);
        Self { memory, iovecs: Vec::new() }
    }
}

// SAFETY: the list and the memory are the value's own, on the heap and in a mapping, and nothing
// uses the memory while a task has the value.
unsafe impl Buffers for Halves {
    fn iovecs(&mut self) -> &[IoVec] {
        let base = self.memory.bytes_mut().as_mut_ptr();
        self.iovecs = vec![IoVec::new(base.wrapping_add(PAGE), PAGE), IoVec::new(base, PAGE)];
        &self.iovecs
    }
}

/// Carries out a task by either interface, and returns it with the bytes that were moved.
fn do_both_ways(file: &File, mut make: impl FnMut() -> Task<Halves>, check: impl Fn(Task<Halves>, usize)) {
    let mut task = make();
    let moved = carry_out(file, &mut task).unwrap();
    check(task, moved);
    // A kernel that refuses io_uring leaves the other way only.
    let Ok(mut ring) = Uring::new(file, 2, &ALL, None) else { return };
    ring.submit("a label", make());
    assert_eq!(ring.in_flight(), 1);
    ring.wait().unwrap();
    let (label, task, moved) = ring.ended().unwrap();
    assert_eq!((label, ring.in_flight()), ("a label", 0));
    check(task, moved.unwrap());
}

#[test]
fn pieces_are_written_and_read_in_their_order() {
    let file = tempfile::tempfile().unwrap();
    let offset = PAGE as u64;
    do_both_ways(
        &file,
        || Task::Write { offset, from: Halves::filled(1) },
        |_, moved| {
            let mut content = [0; 3 * PAGE];
            assert_eq!((moved, file.read_at(&mut content, 0).unwrap()), (2 * PAGE, 3 * PAGE));
            assert!(content[PAGE..2 * PAGE].iter().all(|byte| *byte == 2));
            assert!(content[2 * PAGE..].iter().all(|byte| *byte == 1));
        },
    );
    do_both_ways(
        &file,
        || Task::Read { offset, to: Halves::filled(8) },
        |task, moved| {
            let memory = task.into_buffers().unwrap().memory;
            assert_eq!(moved, 2 * PAGE);
            assert!(memory.bytes()[..PAGE].iter().all(|byte| *byte == 1));
            assert!(memory.bytes()[PAGE..].iter().all(|byte| *byte == 2));
        },
    );
}

#[test]
fn other_tasks_are_carried_out_too() {
    let file = tempfile::tempfile().unwrap();
    do_both_ways(&file, || Task::Sync, |_, moved| assert_eq!(moved, 0));
    let (flags, length) = (FallocateFlags::empty(), 3 * PAGE as u64);
    do_both_ways(
        &file,
        || Task::Allocate { flags, offset: 0, length },
        |_, _| {
            assert_eq!(file.metadata().unwrap().len(), length);
            file.set_len(0).unwrap();
        },
    );
}

#[test]
fn reads_end_where_the_file_does() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&[3; PAGE + 100], 0).unwrap();
    do_both_ways(
        &file,
        || Task::Read { offset: 0, to: Halves::filled(8) },
        |_, moved| {
            assert_eq!(moved, PAGE + 100);
        },
    );
}

#[test]
fn a_ring_does_nothing_but_what_it_is_for() {
    let file = tempfile::tempfile().unwrap();
    let Ok(mut ring) = Uring::<_, Halves>::new(&file, 2, &[Operation::Read, Operation::Write], None) else {
        return;
    };
    ring.submit((), Task::Sync);
    ring.wait().unwrap();
    assert_eq!(ring.ended().unwrap().2.unwrap_err().raw_os_error(), Some(libc::EACCES));
    let other = opcode::Readv::new(io_uring::types::Fd(file.as_raw_fd()), std::ptr::null(), 0).build();
    // SAFETY: the entry names no memory.
    unsafe { ring.ring.submission().push(&other) }.unwrap();
    ring.ring.submit_and_wait(1).unwrap();
    let result = ring.ring.completion().next().unwrap().result();
    assert_eq!(result, -libc::EACCES, "a file that is not the ring's");
}

#[test]
fn the_end_of_a_task_signals_the_event_and_the_ring() {
    let file = tempfile::tempfile().unwrap();
    let event = Event::new().unwrap();
    let Ok(mut ring) = Uring::new(&file, 2, &ALL, Some(&event)) else { return };
    let is_ready = |fd: BorrowedFd<'_>| {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&now)).unwrap() > 0
    };
    assert!(!is_ready(event.as_fd()) && !is_ready(ring.as_fd()));
    ring.submit((), Task::Write { offset: 0, from: Halves::filled(1) });
    ring.wait().unwrap();
    assert!(is_ready(event.as_fd()) && is_ready(ring.as_fd()));
    ring.ended().unwrap().2.unwrap();
    assert!(!is_ready(ring.as_fd()));
}

#[test]
fn a_ring_that_is_dropped_waits_for_its_tasks() {
    let file = tempfile::tempfile().unwrap();
    let Ok(mut ring) = Uring::new(&file, 8, &ALL, None) else { return };
    for page in 0..8 {
        ring.submit((), Task::Write { offset: page * 2 * PAGE as u64, from: Halves::filled(1) });
    }
    drop(ring);
    let mut content = vec![0; 16 * PAGE];
    file.read_exact_at(&mut content, 0).unwrap();
    assert!(content.iter().all(|byte| *byte != 0));
}
