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
pub(super) struct Pool {
    state: Lock<State, SWAP_BUFFERS>,
    /// As many buffers as are awaited have come back.
    came_back: Condvar,
    /// Signalled when a buffer comes back that [`Pool::take_or_call`] did not get.
    call: Arc<Event>,
}

#[derive(Debug)]
struct State {
    free: Vec<MappedPage>,
    called: bool,
    /// How many buffers whoever waits wants to see: with fewer he is not woken. Of several who wait, what the last wants; the
    /// others look again when their time is over.
    awaited: usize,
}

impl Pool {
    /// A pool of `count` buffers, which must not be none.
    pub(super) fn new(count: usize, call: &Arc<Event>) -> io::Result<Arc<Self>> {
        // The lowest addresses first, so that a VM that seldom swaps touches few.
        let free = map_pages(count)?.into_iter().rev().collect();
        Ok(Arc::new(Self {
            state: Lock::new(State { free, called: false, awaited: 0 }),
            came_back: Condvar::new(),
            call: Arc::clone(call),
        }))
    }

    /// Takes a buffer, if there is one.
    pub(super) fn take(self: &Arc<Self>) -> Option<Buffer> {
        let page = self.state.lock().free.pop();
        page.map(|page| self.buffer(page))
    }

    /// Takes a buffer; if there is none, the event is signalled when one has come back.
    pub(super) fn take_or_call(self: &Arc<Self>) -> Option<Buffer> {
        let mut state = self.state.lock();
        let page = state.free.pop();
        state.called |= page.is_none();
        page.map(|page| self.buffer(page))
    }

    /// Waits until there are `count` buffers, but no longer than `timeout`; whether there is any.
    pub(super) fn wait(&self, count: usize, timeout: Duration) -> bool {
        let mut state = self.state.lock();
        state.awaited = count;
        let state = state.wait_timeout_while(&self.came_back, timeout, |state| state.free.len() < count);
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

/// A page-aligned page. Dropped, it goes back to its pool, with its content.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// Always there but in `drop`.
    page: Option<MappedPage>,
    pool: Arc<Pool>,
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
        let called = std::mem::take(&mut state.called);
        let enough = state.free.len() >= state.awaited;
        drop(state);
        if enough {
            self.pool.came_back.notify_all();
        }
        if called {
            self.pool.call.signal();
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    fn is_signalled(event: &Event) -> bool {
        poll(&mut [PollFd::new(event, PollFlags::IN)], Some(&rustix::time::Timespec::default())).unwrap() == 1
    }

    #[test]
    fn buffers_are_aligned_distinct_and_come_back() {
        let call = Arc::new(Event::new().unwrap());
        let pool = Pool::new(3, &call).unwrap();
        let mut taken: Vec<Buffer> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(taken.len(), 3);
        for (value, buffer) in (1..).zip(&mut taken) {
            assert!(buffer.as_ptr().addr().is_multiple_of(PAGE));
            buffer.fill(value);
        }
        assert!((1..).zip(&taken).all(|(value, buffer)| buffer.iter().all(|&byte| byte == value)));
        assert!(!pool.wait(1, Duration::ZERO));
        taken.pop();
        assert!(pool.wait(1, Duration::ZERO) && pool.wait(2, Duration::ZERO), "one is better than none");
        assert!(!is_signalled(&call), "nobody called");
        drop((pool.take_or_call(), pool.take_or_call()));
        assert_eq!(pool.free_buffers(), 1);
        let last = pool.take_or_call().unwrap();
        assert!(pool.take_or_call().is_none());
        drop(last);
        assert!(is_signalled(&call));
    }
}
