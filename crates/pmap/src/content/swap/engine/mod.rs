//! What carries out reads and writes of the swap file: an io_uring, or a thread.

#[cfg(test)]
mod faults;
mod worker;

use std::fs::File;
use std::io;

use plimsoll_sys::task::{Operation, Task as Request};
use plimsoll_sys::uring::Uring;

#[cfg(test)]
pub(crate) use self::faults::Faults;
use self::worker::Worker;
use super::event::Event;
use super::task::Task;
#[cfg(test)]
use crate::sync::Arc;

/// Tasks that may be in flight. A device that does much at a time wants many; each costs a place in
/// the ring, and what is in flight is what a page that is needed at once waits behind.
pub(super) const DEPTH: usize = 64;

/// A task that has ended, and how many bytes were read or written: perhaps fewer than it had.
pub(super) type Ended = (Task, io::Result<usize>);

/// Carries out tasks, and signals an event when some have ended.
#[derive(Debug)]
pub(super) struct Engine {
    carrier: Carrier,
    #[cfg(test)]
    pub(super) faults: Arc<Faults>,
}

#[derive(Debug)]
enum Carrier {
    Uring(Box<Uring<(), Task>>),
    Worker(Worker),
}

impl Engine {
    /// An io_uring, or a thread if that is refused.
    pub(super) fn new(file: File, event: &Event) -> Self {
        match ring(&file, event) {
            Ok(uring) => Self::of(Carrier::Uring(Box::new(uring)), event),
            Err(error) => {
                tracing::info!(%error, "no io_uring for the swap: a thread does its I/O, one after the other");
                Self::worker(file, event)
            }
        }
    }

    /// The engine that needs nothing of the kernel but `preadv` and `pwritev`.
    pub(super) fn worker(file: File, event: &Event) -> Self {
        Self::of(Carrier::Worker(Worker::new(file, event.clone())), event)
    }

    #[cfg_attr(not(test), expect(unused_variables, reason = "injected faults signal it"))]
    fn of(carrier: Carrier, event: &Event) -> Self {
        Self {
            carrier,
            #[cfg(test)]
            faults: Arc::new(Faults::new(event.clone())),
        }
    }

    /// Takes a task; no more than [`DEPTH`] may be in flight. It is begun at the next
    /// [`commit`](Self::commit) at the latest.
    pub(super) fn submit(&mut self, task: Task) {
        #[cfg(test)]
        let Some(task) = self.faults.meet(task) else { return };
        match &mut self.carrier {
            Carrier::Uring(uring) => uring.submit((), request(task)),
            Carrier::Worker(worker) => worker.submit(task),
        }
    }

    /// Begins what was submitted.
    ///
    /// # Errors
    /// The kernel takes nothing now; what was submitted stays for the next call.
    pub(super) fn commit(&mut self) -> io::Result<()> {
        match &mut self.carrier {
            Carrier::Uring(uring) => uring.commit(),
            Carrier::Worker(_) => Ok(()),
        }
    }

    /// The next task that has ended.
    pub(super) fn ended(&mut self) -> Option<Ended> {
        #[cfg(test)]
        {
            for task in self.faults.let_go() {
                self.submit(task);
            }
            if let Some(failed) = self.faults.failed() {
                return Some(failed);
            }
        }
        let ended = match &mut self.carrier {
            Carrier::Uring(uring) => uring.ended().map(|((), request, result)| (task_of(request), result)),
            Carrier::Worker(worker) => worker.ended(),
        };
        #[cfg(test)]
        let ended = ended.map(|ended| self.faults.shorten(ended));
        ended
    }
}

/// A ring that reads and writes `file`, and does nothing else.
pub(super) fn ring(file: &File, event: &Event) -> io::Result<Uring<(), Task>> {
    Uring::new(file, DEPTH, &[Operation::Read, Operation::Write], Some(event))
}

/// What the kernel is to do for `task`.
fn request(task: Task) -> Request<Task> {
    let offset = task.offset();
    if task.is_write() { Request::Write { offset, from: task } } else { Request::Read { offset, to: task } }
}

/// The task that `request` was made of.
fn task_of(request: Request<Task>) -> Task {
    request.into_buffers().expect("the swap only reads and writes")
}
