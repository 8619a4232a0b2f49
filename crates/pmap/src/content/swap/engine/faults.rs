//! What a swap device may do to us, for tests to order. Every swap of a test build has it.

use std::collections::{HashSet, VecDeque};
use std::io;

use super::Ended;
use crate::address::PAGE;
use crate::content::swap::event::Event;
use crate::content::swap::slots::SwapSlot;
use crate::content::swap::task::Task;
use crate::sync::{Mutex, lock};

/// Orders for one swap device. They hold for I/O that begins after them.
#[derive(Debug)]
pub(crate) struct Faults {
    orders: Mutex<Orders>,
    event: Event,
}

#[derive(Debug, Default)]
struct Orders {
    reads: Failing,
    writes: Failing,
    bad: HashSet<SwapSlot>,
    full: bool,
    shorten: bool,
    hold: bool,
    held: Vec<Task>,
    failed: VecDeque<Ended>,
}

/// How many I/Os still succeed, and how many fail after those.
#[derive(Debug, Default)]
struct Failing {
    after: usize,
    count: usize,
}

impl Failing {
    fn next(&mut self) -> bool {
        if self.count == 0 || self.after > 0 {
            self.after = self.after.saturating_sub(1);
            return false;
        }
        self.count -= 1;
        true
    }
}

impl Faults {
    pub(super) fn new(event: Event) -> Self {
        Self { orders: Mutex::default(), event }
    }

    /// After `after` more reads, `count` reads fail with EIO. Those that are tried again page by
    /// page count anew.
    pub(crate) fn fail_reads(&self, after: usize, count: usize) {
        lock(&self.orders).reads = Failing { after, count };
    }

    /// After `after` more writes, `count` writes fail with EIO.
    pub(crate) fn fail_writes(&self, after: usize, count: usize) {
        lock(&self.orders).writes = Failing { after, count };
    }

    /// Every read of this slot fails with EIO, as one of a bad sector does.
    pub(crate) fn fail_read_at(&self, slot: SwapSlot) {
        lock(&self.orders).bad.insert(slot);
    }

    /// Every write fails with ENOSPC.
    pub(crate) fn fill(&self) {
        lock(&self.orders).full = true;
    }

    /// Whatever moves more than a page is reported to have moved about half of it.
    pub(crate) fn shorten_all(&self) {
        lock(&self.orders).shorten = true;
    }

    /// Nothing that begins from now on goes on before [`release`](Self::release).
    pub(crate) fn hold(&self) {
        lock(&self.orders).hold = true;
    }

    pub(crate) fn release(&self) {
        self.release_silently();
        self.event.signal();
    }

    /// The same, and nothing tells of it.
    pub(crate) fn release_silently(&self) {
        lock(&self.orders).hold = false;
    }

    /// I/Os that are held.
    pub(crate) fn held(&self) -> usize {
        lock(&self.orders).held.len()
    }

    /// The device is well again; what is held stays held.
    pub(crate) fn heal(&self) {
        let mut orders = lock(&self.orders);
        let held = std::mem::take(&mut orders.held);
        *orders = Orders {
            hold: orders.hold,
            held,
            failed: std::mem::take(&mut orders.failed),
            ..Orders::default()
        };
    }

    /// Passes a task on, or keeps it: for later, or as failed.
    pub(super) fn meet(&self, task: Task) -> Option<Task> {
        let mut orders = lock(&self.orders);
        if orders.hold {
            orders.held.push(task);
            return None;
        }
        let error = if task.is_write() {
            if orders.full { Some(libc::ENOSPC) } else { orders.writes.next().then_some(libc::EIO) }
        } else {
            let bad = (task.done..task.len()).any(|page| orders.bad.contains(&task.first.plus(page)));
            (orders.reads.next() || bad).then_some(libc::EIO)
        };
        let Some(error) = error else { return Some(task) };
        orders.failed.push_back((task, Err(io::Error::from_raw_os_error(error))));
        self.event.signal();
        None
    }

    /// Tasks that were held and are no longer.
    pub(super) fn let_go(&self) -> Vec<Task> {
        let mut orders = lock(&self.orders);
        if orders.hold { Vec::new() } else { std::mem::take(&mut orders.held) }
    }

    pub(super) fn failed(&self) -> Option<Ended> {
        lock(&self.orders).failed.pop_front()
    }

    pub(super) fn shorten(&self, ended: Ended) -> Ended {
        let shorten = lock(&self.orders).shorten;
        let (task, result) = ended;
        (task, result.map(|bytes| if shorten && bytes > PAGE { bytes / 2 + 100 } else { bytes }))
    }
}
