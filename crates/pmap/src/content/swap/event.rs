use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

/// A descriptor that is readable from [`signal`](Self::signal) to [`clear`](Self::clear).
#[derive(Debug)]
pub(super) struct Event(OwnedFd);

impl Event {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
    }

    pub(super) fn signal(&self) {
        // It fails only when the counter is full, and then the descriptor is readable already.
        rustix::io::write(&self.0, &1u64.to_ne_bytes()).ok();
    }

    pub(super) fn clear(&self) {
        // It fails only when there was no signal.
        rustix::io::read(&self.0, &mut [0u8; 8]).ok();
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
