//! What `swap/engine/` is in production: a disk that does what it was told in any order, at any
//! later time, in one go or in parts, and fails now and then.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::PoisonError;

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::{Arc, Condvar, Mutex};

use super::event::Event;
use super::task::{Memory, Task};
use crate::address::PAGE;
use crate::sync::lock;

pub(super) const DEPTH: usize = 64;

pub(super) type Ended = (Task, io::Result<usize>);

/// Hands tasks to the model's disk.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) faults: Arc<Faults>,
}

/// The disk. Some thread of the model must be in [`Faults::work`].
#[derive(Debug)]
pub(crate) struct Faults {
    disk: Mutex<Disk>,
    begun: Condvar,
    event: Event,
}

#[derive(Debug, Default)]
struct Disk {
    slots: HashMap<usize, Box<[u8; PAGE]>>,
    begun: Vec<Task>,
    ended: Vec<Ended>,
    /// Writes that still succeed; `None`: all of them.
    good: Option<usize>,
    /// Reads that still fail.
    bad: usize,
    closed: bool,
}

impl Engine {
    pub(super) fn new(_file: File, event: &Event) -> Self {
        let faults = Faults { disk: Mutex::default(), begun: Condvar::new(), event: event.clone() };
        Self { faults: Arc::new(faults) }
    }

    pub(super) fn submit(&mut self, task: Task) {
        lock(&self.faults.disk).begun.push(task);
        self.faults.begun.notify_all();
    }

    pub(super) fn commit(&mut self) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn ended(&mut self) -> Option<Ended> {
        lock(&self.faults.disk).ended.pop()
    }
}

impl Faults {
    /// Does what is begun until the disk is closed.
    pub(crate) fn work(&self) {
        while let Some(mut task) = self.next() {
            let result = lock(&self.disk).carry_out(&mut task);
            // What was done and what is known of it are two things.
            lock(&self.disk).ended.push((task, result));
            self.event.signal();
        }
    }

    /// After `good` more writes, none succeeds.
    pub(crate) fn break_after(&self, good: usize) {
        lock(&self.disk).good = Some(good);
    }

    /// The next `bad` reads fail.
    pub(crate) fn fail_reads(&self, bad: usize) {
        lock(&self.disk).bad = bad;
    }

    pub(crate) fn close(&self) {
        lock(&self.disk).closed = true;
        self.begun.notify_all();
    }

    fn next(&self) -> Option<Task> {
        let idle = |disk: &mut Disk| disk.begun.is_empty() && !disk.closed;
        let mut disk = self.begun.wait_while(lock(&self.disk), idle).unwrap_or_else(PoisonError::into_inner);
        let any = thread_rng().gen_range(0..disk.begun.len().max(1));
        (!disk.begun.is_empty()).then(|| disk.begun.swap_remove(any))
    }
}

impl Disk {
    /// Does some or all of a task.
    fn carry_out(&mut self, task: &mut Task) -> io::Result<usize> {
        let first = usize::try_from(task.offset()).expect("a small file") / PAGE;
        let left = task.len() - task.done;
        let pages = if thread_rng().gen_bool(0.25) { thread_rng().gen_range(1..=left) } else { left };
        let done = task.done;
        match &mut task.memory {
            Memory::Write(buffers) => {
                if self
                    .good
                    .as_mut()
                    .is_some_and(|good| good.checked_sub(1).map(|less| *good = less).is_none())
                {
                    return Err(io::Error::from_raw_os_error(libc::EIO));
                }
                for (slot, buffer) in (first..).zip(&buffers[done..done + pages]) {
                    self.slots.insert(slot, Box::new(***buffer));
                }
            }
            Memory::Read(_) if self.bad > 0 => {
                self.bad -= 1;
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            Memory::Read(buffers) => {
                for (slot, buffer) in (first..).zip(&mut buffers[done..done + pages]) {
                    **buffer = **self.slots.get(&slot).expect("what is read was written before");
                }
            }
        }
        Ok(pages * PAGE)
    }
}
