use std::collections::VecDeque;
use std::io;

use super::buffers::{Buffer, BufferPool};
use super::engine::{DEPTH, Engine};
use super::slots::SwapSlot;
use super::task::{Memory, Task};
use crate::address::PAGE;
use crate::lock::{Lock, SWAP_QUEUE};
use crate::sync::Arc;

/// Writes that may be in flight: half of all, so that a read, which a fault waits for, always finds
/// a place.
const MOST_WRITES: usize = DEPTH / 2;
/// Pages in one write: 256 KiB. With shorter ones a disk spends its time between them; a longer one
/// keeps a read waiting.
const LONGEST_WRITE: usize = 64;
/// How often in a row a task may end without a page moved and without an error of the device; then
/// that is an error. Such ends are rare (a signal, memory short). Fewer would turn bad luck into an
/// error, and without a bound a broken file system could repeat a task for ever.
const MOST_STALLS: u8 = 16;

/// I/O that waits to be begun. Any thread may add to it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    reads: VecDeque<Run>,
    writes: VecDeque<Task>,
}

/// Adjacent slots to be read, once there are buffers.
#[derive(Debug)]
struct Run {
    first: SwapSlot,
    owners: Vec<u64>,
}

/// What became of one page.
#[derive(Debug)]
pub(super) enum Outcome {
    Read(SwapSlot, u64, io::Result<Buffer>),
    Written(SwapSlot, u64, io::Result<()>),
}

/// The engine, and the order in which it is given tasks.
#[derive(Debug)]
pub(super) struct Schedule {
    pub(super) engine: Engine,
    /// For reads.
    buffers: Arc<BufferPool>,
    /// Tasks to be submitted again: the rest of short ones, the pages of failed ones.
    again: VecDeque<Task>,
    reads: usize,
    writes: usize,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.writes.is_empty()
    }

    pub(super) fn read(&mut self, first: SwapSlot, owners: &[u64]) {
        self.reads.push_back(Run { first, owners: owners.to_vec() });
    }

    /// Adds a page to the last write that waits, if it lies behind it, or else begins another.
    pub(super) fn write(&mut self, slot: SwapSlot, owner: u64, buffer: Arc<Buffer>) {
        if let Some(Task { first, owners, memory: Memory::Write(buffers), .. }) = self.writes.back_mut()
            && first.plus(owners.len()) == slot
            && owners.len() < LONGEST_WRITE
        {
            owners.push(owner);
            buffers.push(buffer);
        } else {
            self.writes.push_back(Task::new(slot, vec![owner], Memory::Write(vec![buffer])));
        }
    }

    /// Takes a read off the queue, as far as there are buffers for it.
    fn next_read(&mut self, pool: &Arc<BufferPool>) -> Option<Task> {
        let run = self.reads.front_mut()?;
        let first = pool.take_or_notify()?;
        let more = std::iter::from_fn(|| pool.take()).take(run.owners.len().saturating_sub(1));
        let buffers: Vec<Buffer> = std::iter::once(first).chain(more).collect();
        let rest = run.owners.split_off(buffers.len().min(run.owners.len()));
        let owners = std::mem::replace(&mut run.owners, rest);
        let task = Task::new(run.first, owners, Memory::Read(buffers));
        run.first = run.first.plus(task.len());
        if run.owners.is_empty() {
            self.reads.pop_front();
        }
        Some(task)
    }
}

impl Schedule {
    pub(super) fn new(engine: Engine, buffers: Arc<BufferPool>) -> Self {
        Self { engine, buffers, again: VecDeque::new(), reads: 0, writes: 0 }
    }

    /// Collects tasks that have ended, and begins tasks that wait.
    ///
    /// # Errors
    /// The kernel takes nothing now: call again. Tasks that have ended are in `outcomes` all the
    /// same.
    pub(super) fn advance(
        &mut self,
        queue: &Lock<Queue, SWAP_QUEUE>,
        outcomes: &mut Vec<Outcome>,
    ) -> io::Result<()> {
        while let Some((task, result)) = self.engine.ended() {
            *self.in_flight(&task) -= 1;
            self.settle(task, result, outcomes);
        }
        while self.reads + self.writes < DEPTH {
            let Some(task) = self.again.pop_front().or_else(|| self.next(queue)) else { break };
            *self.in_flight(&task) += 1;
            self.engine.submit(task);
        }
        self.engine.commit()
    }

    /// Whether the engine has tasks.
    pub(super) fn is_busy(&self) -> bool {
        self.reads + self.writes > 0
    }

    #[cfg(test)]
    pub(super) fn free_read_buffers(&self) -> usize {
        self.buffers.free_buffers()
    }

    fn in_flight(&mut self, task: &Task) -> &mut usize {
        if task.is_write() { &mut self.writes } else { &mut self.reads }
    }

    fn next(&self, queue: &Lock<Queue, SWAP_QUEUE>) -> Option<Task> {
        let mut queue = queue.lock();
        let read = queue.next_read(&self.buffers);
        read.or_else(|| if self.writes < MOST_WRITES { queue.writes.pop_front() } else { None })
    }

    /// Decides what follows after a task has ended.
    fn settle(&mut self, mut task: Task, result: io::Result<usize>, outcomes: &mut Vec<Outcome>) {
        let bytes = result.as_ref().copied().unwrap_or(0);
        task.done += bytes / PAGE;
        if task.done >= task.len() {
            return finish(task, outcomes);
        }
        task.stalls = if bytes >= PAGE { 0 } else { task.stalls + 1 };
        match result {
            // Less than a page is not the end: the next attempt shows what cut it short.
            Ok(1..) if task.stalls < MOST_STALLS => self.again.push_back(task),
            Ok(_) if task.is_write() => self.fail(task, &io::ErrorKind::WriteZero.into(), outcomes),
            Ok(_) => self.fail(task, &io::ErrorKind::UnexpectedEof.into(), outcomes),
            Err(error) if is_passing(&error) && task.stalls < MOST_STALLS => self.again.push_back(task),
            Err(error) => self.fail(task, &error, outcomes),
        }
    }

    /// Ends a task that cannot go on. A read of several pages is tried page by page first, so that
    /// a page that cannot be read does not harm its neighbours.
    fn fail(&mut self, mut task: Task, error: &io::Error, outcomes: &mut Vec<Outcome>) {
        let owners = task.owners.split_off(task.done);
        let first = task.first.plus(task.done);
        let alone = owners.len() == 1;
        let pages = (0..).map(|index| first.plus(index)).zip(owners);
        match &mut task.memory {
            Memory::Read(buffers) if !alone => {
                let buffers = buffers.split_off(task.done);
                let one = |((slot, owner), buffer)| Task::new(slot, vec![owner], Memory::Read(vec![buffer]));
                self.again.extend(pages.zip(buffers).map(one));
            }
            Memory::Read(buffers) => {
                buffers.truncate(task.done);
                outcomes.extend(pages.map(|(slot, owner)| Outcome::Read(slot, owner, Err(same(error)))));
            }
            Memory::Write(buffers) => {
                buffers.truncate(task.done);
                outcomes.extend(pages.map(|(slot, owner)| Outcome::Written(slot, owner, Err(same(error)))));
            }
        }
        finish(task, outcomes);
    }
}

/// All pages of the task are done.
fn finish(task: Task, outcomes: &mut Vec<Outcome>) {
    let pages = (0..).map(|index| task.first.plus(index)).zip(task.owners);
    match task.memory {
        Memory::Read(buffers) => {
            let read = |((slot, owner), buffer)| Outcome::Read(slot, owner, Ok(buffer));
            outcomes.extend(pages.zip(buffers).map(read));
        }
        Memory::Write(_) => {
            outcomes.extend(pages.map(|(slot, owner)| Outcome::Written(slot, owner, Ok(()))));
        }
    }
}

/// Errors that say nothing about the device. A task is cancelled when the thread that began it
/// ends.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::ECANCELED))
}

/// The error again, for another page.
fn same(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}
