#[cfg(test)]
mod tests;

use std::io;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use super::event::Event;
use super::mmap::{MappedPage, map_pages};
use crate::address::PAGE;
use crate::lock::{Lock, SWAP_BUFFERS};
use crate::sync::{Arc, Condvar};

/// A bounded number of page-aligned buffers, which direct I/O needs.
#[derive(Debug)]
pub(super) struct BufferPool {
    state: Lock<State, SWAP_BUFFERS>,
    /// As many buffers as a waiter wants are free.
    returned: Condvar,
    /// Signalled when a buffer is returned after [`BufferPool::take_or_notify`] found none.
    notify: Event,
}

#[derive(Debug)]
struct State {
    free: Vec<MappedPage>,
    notify_next: bool,
    /// Wake waiters once this many buffers are free. With several waiters the latest value counts;
    /// the others rely on their timeout.
    wake_at: usize,
}

impl BufferPool {
    /// A pool of `count` buffers, which must not be zero.
    pub(super) fn new(count: usize, notify: &Event) -> io::Result<Arc<Self>> {
        // The lowest addresses first, so that a VM that seldom swaps touches few pages.
        let free = map_pages(count)?.into_iter().rev().collect();
        Ok(Arc::new(Self {
            state: Lock::new(State { free, notify_next: false, wake_at: 0 }),
            returned: Condvar::new(),
            notify: notify.clone(),
        }))
    }

    /// Takes a buffer, if there is one.
    pub(super) fn take(self: &Arc<Self>) -> Option<Buffer> {
        let page = self.state.lock().free.pop();
        page.map(|page| self.buffer(page))
    }

    /// Takes a buffer; if none is free, the event is signalled once one is returned.
    pub(super) fn take_or_notify(self: &Arc<Self>) -> Option<Buffer> {
        let mut state = self.state.lock();
        let page = state.free.pop();
        state.notify_next |= page.is_none();
        page.map(|page| self.buffer(page))
    }

    /// Waits until there are `count` buffers, for at most `timeout`; returns whether there is any.
    pub(super) fn wait(&self, count: usize, timeout: Duration) -> bool {
        let mut state = self.state.lock();
        state.wake_at = count;
        let state = state.wait_timeout_while(&self.returned, timeout, |state| state.free.len() < count);
        !state.free.is_empty()
    }

    #[cfg(test)]
    pub(super) fn free_buffers(&self) -> usize {
        self.state.lock().free.len()
    }

    fn buffer(self: &Arc<Self>, page: MappedPage) -> Buffer {
        Buffer { page: Some(page), pool: Arc::clone(self) }
    }
}

/// A page-aligned page. It returns to its pool when it is dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// `Some` until it is dropped.
    page: Option<MappedPage>,
    pool: Arc<BufferPool>,
}

impl Deref for Buffer {
    type Target = [u8; PAGE];

    fn deref(&self) -> &Self::Target {
        self.page.as_ref().expect("a buffer has its page until it is dropped")
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.page.as_mut().expect("a buffer has its page until it is dropped")
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.free.extend(self.page.take());
        let notify_next = std::mem::take(&mut state.notify_next);
        let enough = state.free.len() >= state.wake_at;
        drop(state);
        if enough {
            self.pool.returned.notify_all();
        }
        if notify_next {
            self.pool.notify.signal();
        }
    }
}
