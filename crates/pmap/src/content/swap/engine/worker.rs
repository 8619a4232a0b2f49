use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::thread::JoinHandle;

use plimsoll_sys::preadv::carry_out;

use super::{Ended, request, task_of};
use crate::content::swap::event::Event;
use crate::content::swap::task::Task;
use crate::lock::{Lock, SWAP_WORKER};
use crate::sync::{Arc, Condvar};

/// A thread that carries out tasks one after the other, reads first, because faults wait for those.
///
/// It is started when the first task comes, and so has whatever restrictions the process was put
/// under by then.
#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    file: File,
    event: Event,
    state: Lock<State, SWAP_WORKER>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    reads: VecDeque<Task>,
    writes: VecDeque<Task>,
    ended: VecDeque<Ended>,
    stop: bool,
}

impl Worker {
    pub(super) fn new(file: File, event: Event) -> Self {
        let shared = Shared { file, event, state: Lock::default(), changed: Condvar::new() };
        Self { shared: Arc::new(shared), thread: None }
    }

    /// Takes a task. If no thread can be started, the caller's carries it out.
    pub(super) fn submit(&mut self, task: Task) {
        if let Err(error) = self.start() {
            tracing::debug!(%error, "no thread for the swap's I/O: done at once");
            return self.shared.carry_out(task);
        }
        let mut state = self.shared.state.lock();
        if task.is_write() {
            state.writes.push_back(task);
        } else {
            state.reads.push_back(task);
        }
        self.shared.changed.notify_one();
    }

    pub(super) fn ended(&mut self) -> Option<Ended> {
        self.shared.state.lock().ended.pop_front()
    }

    fn start(&mut self) -> io::Result<()> {
        if self.thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("swap".into());
            self.thread = Some(thread.spawn(move || while shared.carry_out_next() {})?);
        }
        Ok(())
    }
}

impl Shared {
    /// Waits for a task and carries it out; false when the worker stops.
    fn carry_out_next(&self) -> bool {
        let idle = |state: &mut State| !state.stop && state.reads.is_empty() && state.writes.is_empty();
        let mut state = self.state.lock().wait_while(&self.changed, idle);
        if state.stop {
            return false;
        }
        let task = state.reads.pop_front().or_else(|| state.writes.pop_front());
        drop(state);
        task.into_iter().for_each(|task| self.carry_out(task));
        true
    }

    fn carry_out(&self, task: Task) {
        let mut request = request(task);
        let result = carry_out(&self.file, &mut request);
        self.state.lock().ended.push_back((task_of(request), result));
        self.event.signal();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.state.lock().stop = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that did the swap's I/O had panicked");
        }
    }
}
