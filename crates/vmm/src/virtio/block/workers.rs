//! Threads that carry out requests to an image.
//!
//! An image's data is where its metadata says, so a request may take several reads and writes one
//! after the other. They run on threads of the disk's own: the device's thread answers meanwhile.
//! Data is copied through a buffer, so that it need not be aligned in guest memory as direct I/O
//! asks; the guest's pages stay pinned until the request has ended.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use plimsoll_image::{FileStorage, Image};
use plimsoll_pmap::GuestRam;
use plimsoll_sys::direct::COARSEST;
use plimsoll_sys::{Event, lock};

use super::super::ring::Spans;
use super::direction::Direction;
use super::task::{Ended, Task};

/// Requests that run side by side. More would help reads of fast disks, and cost a buffer and a
/// stack each.
const THREADS: usize = 2;
/// Bytes that are copied at a time: a cluster as most images have them.
const PIECE: u32 = 64 * 1024;
/// A thread's stack: decompression keeps its state on it.
const STACK_SIZE: usize = 256 * 1024;

/// The threads of one image.
pub(super) struct Workers {
    /// `None` tells the threads to end.
    tasks: Option<Sender<(u16, Task)>>,
    ended: Receiver<Ended>,
    /// One that was waited for.
    waited: Option<Ended>,
    bell: Event,
    image: Arc<Image<FileStorage>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts the threads of the device `name`, which move data between `image` and `ram`.
    ///
    /// # Errors
    /// No file descriptor or no thread is left.
    pub(super) fn spawn(name: &str, image: Arc<Image<FileStorage>>, ram: &GuestRam) -> io::Result<Self> {
        let (tasks, inbox) = mpsc::channel();
        let (outbox, ended) = mpsc::channel();
        let (inbox, bell) = (Arc::new(Mutex::new(inbox)), Event::new()?);
        let threads: io::Result<Vec<_>> = (0..THREADS)
            .map(|number| {
                let worker = Worker {
                    image: Arc::clone(&image),
                    ram: ram.clone(),
                    inbox: Arc::clone(&inbox),
                    outbox: outbox.clone(),
                    bell: bell.clone(),
                };
                let builder =
                    thread::Builder::new().name(format!("{name}-io{number}")).stack_size(STACK_SIZE);
                builder.spawn(move || worker.run())
            })
            .collect();
        Ok(Self { tasks: Some(tasks), ended, waited: None, bell, image, threads: threads? })
    }

    /// The image.
    pub(super) fn image(&self) -> &Image<FileStorage> {
        &self.image
    }

    pub(super) fn submit(&mut self, tag: u16, task: Task) {
        let tasks = self.tasks.as_ref().expect("gone only when dropped");
        tasks.send((tag, task)).expect("the threads end when this is dropped");
    }

    /// Waits until a task has ended. One is in flight.
    pub(super) fn wait(&mut self) {
        if self.waited.is_none() {
            // An error means that the threads are gone, after a panic that ends the VM.
            self.waited = self.ended.recv().ok();
        }
    }

    pub(super) fn ended(&mut self) -> Option<Ended> {
        if let Some(ended) = self.waited.take() {
            return Some(ended);
        }
        // Cleared before the message is looked for: a later one signals again.
        self.bell.clear();
        let ended = self.ended.try_recv().ok()?;
        // There may be more, of which the bell told before it was cleared.
        self.bell.signal();
        Some(ended)
    }
}

impl AsFd for Workers {
    /// Readable when a task has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.tasks = None;
        for thread in self.threads.drain(..) {
            // A panic of the thread has been reported by the panic itself.
            thread.join().ok();
        }
    }
}

struct Worker {
    image: Arc<Image<FileStorage>>,
    ram: GuestRam,
    inbox: Arc<Mutex<Receiver<(u16, Task)>>>,
    outbox: Sender<Ended>,
    bell: Event,
}

impl Worker {
    fn run(self) {
        let mut buffer = Buffer::new();
        loop {
            let task = lock(&self.inbox).recv();
            let Ok((tag, task)) = task else { return };
            let result = self.carry_out(task, &mut buffer);
            if self.outbox.send((tag, result)).is_err() {
                return;
            }
            self.bell.signal();
        }
    }

    /// Does `task`. What it has pinned is not pinned any more when this returns.
    fn carry_out(&self, task: Task, buffer: &mut Buffer) -> io::Result<usize> {
        match task {
            Task::Move { direction, offset, memory, buffers } => {
                let moved = self.copy(direction, offset, &buffers.unwrap_or_default(), buffer);
                drop(memory);
                moved
            }
            Task::Sync => self.image.flush().map(|()| 0),
            Task::Discard { offset, length } => self.image.discard(offset, length).map(|()| 0),
            Task::Zero { offset, length, unmap } => self.image.zero(offset, length, unmap).map(|()| 0),
        }
    }

    fn copy(
        &self,
        direction: Direction,
        mut offset: u64,
        buffers: &Spans,
        buffer: &mut Buffer,
    ) -> io::Result<usize> {
        let mut left = buffers.clone();
        while left.len() > 0 {
            // Pieces end where clusters of that size do.
            let piece = (PIECE - u32::try_from(offset % u64::from(PIECE)).expect("less than a piece"))
                .min(left.len());
            let (part, rest) = left.split(piece).expect("no more than there is");
            let bytes = buffer.aligned(piece);
            let outside = |broken: super::super::back::Broken| io::Error::other(broken.to_string());
            match direction {
                Direction::Read => {
                    self.image.read(bytes, offset)?;
                    part.write(&*self.ram, bytes).map_err(outside)?;
                }
                Direction::Write => {
                    part.read(&*self.ram, bytes).map_err(outside)?;
                    self.image.write(bytes, offset)?;
                }
            }
            offset += u64::from(piece);
            left = rest;
        }
        usize::try_from(buffers.len()).map_err(io::Error::other)
    }
}

/// Memory that direct I/O takes.
struct Buffer {
    memory: Vec<u8>,
    start: usize,
}

impl Buffer {
    fn new() -> Self {
        let memory = vec![0; (PIECE + COARSEST) as usize];
        let start = memory.as_ptr().align_offset(COARSEST as usize);
        Self { memory, start }
    }

    fn aligned(&mut self, length: u32) -> &mut [u8] {
        &mut self.memory[self.start..][..length as usize]
    }
}
