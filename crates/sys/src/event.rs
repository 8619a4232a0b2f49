//! Event descriptors (eventfd).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// A descriptor that is readable from [`signal`](Self::signal) to [`clear`](Self::clear). Clones
/// are the same event.
///
/// It never blocks: a thread waits for it with `poll(2)`.
#[derive(Clone, Debug)]
pub struct Event(Arc<OwnedFd>);

impl Event {
    /// Makes an event that has not been signalled.
    ///
    /// # Errors
    /// The process or the machine has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Makes the descriptor readable.
    pub fn signal(&self) {
        // It fails only when the counter is full, and then the descriptor is readable already.
        rustix::io::write(&*self.0, &1u64.to_ne_bytes()).ok();
    }

    /// Makes the descriptor unreadable until the next signal.
    pub fn clear(&self) {
        // It fails only when there was no signal.
        rustix::io::read(&*self.0, &mut [0u8; 8]).ok();
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_signalled(event: &Event) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(event, PollFlags::IN)], Some(&now)).unwrap() > 0
    }

    #[test]
    fn an_event_is_readable_from_signal_to_clear() {
        let event = Event::new().unwrap();
        event.clear();
        assert!(!is_signalled(&event), "new, and cleared without a signal");
        event.clone().signal();
        event.signal();
        assert!(is_signalled(&event));
        event.clear();
        assert!(!is_signalled(&event), "one clear is enough for two signals");
    }
}
