//! What carries out reads and writes of the swap file: an io_uring, or a thread.

#[cfg(test)]
mod faults;
mod preadv;
pub(super) mod uring;
mod worker;

use std::fs::File;
use std::io;

#[cfg(test)]
pub(crate) use self::faults::Faults;
use self::uring::Uring;
use self::worker::Worker;
use super::event::Event;
use super::task::Task;
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
    Uring(Box<Uring>),
    Worker(Worker),
}

impl Engine {
    /// An io_uring, or a thread if that is refused.
    pub(super) fn new(file: File, event: &Arc<Event>) -> Self {
        match Uring::new(&file, event) {
            Ok(uring) => Self::of(Carrier::Uring(Box::new(uring)), event),
            Err(error) => {
                tracing::info!(%error, "no io_uring for the swap: a thread does its I/O, one after the other");
                Self::worker(file, event)
            }
        }
    }

    /// The engine that needs nothing of the kernel but `preadv` and `pwritev`.
    pub(super) fn worker(file: File, event: &Arc<Event>) -> Self {
        Self::of(Carrier::Worker(Worker::new(file, Arc::clone(event))), event)
    }

    #[cfg_attr(not(test), expect(unused_variables, reason = "injected faults signal it"))]
    fn of(carrier: Carrier, event: &Arc<Event>) -> Self {
        Self {
            carrier,
            #[cfg(test)]
            faults: Arc::new(Faults::new(Arc::clone(event))),
        }
    }

    /// Takes a task; no more than [`DEPTH`] may be in flight. It is begun at the next
    /// [`commit`](Self::commit) at the latest.
    pub(super) fn submit(&mut self, task: Task) {
        #[cfg(test)]
        let Some(task) = self.faults.meet(task) else { return };
        match &mut self.carrier {
            Carrier::Uring(uring) => uring.submit(task),
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
            Carrier::Uring(uring) => uring.ended(),
            Carrier::Worker(worker) => worker.ended(),
        };
        #[cfg(test)]
        let ended = ended.map(|ended| self.faults.shorten(ended));
        ended
    }
}
