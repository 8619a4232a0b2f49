use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// Something that happened and that a thread waits for with poll(2): a non-blocking event
/// descriptor, shared by clones.
#[derive(Clone, Debug)]
pub(crate) struct Event(Arc<OwnedFd>);

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Event {
    /// One that has not happened.
    ///
    /// # Errors
    /// No file descriptor is to be had.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// It happens: the descriptor is readable until [`Event::clear`].
    pub(crate) fn signal(&self) {
        // The only possible failure is a full counter, and then the descriptor is readable already.
        rustix::io::write(&*self.0, &1u64.to_ne_bytes()).ok();
    }

    /// Forgets that it happened.
    pub(crate) fn clear(&self) {
        // Fails where it did not happen: nothing to forget.
        rustix::io::read(&*self.0, &mut [0; 8]).ok();
    }

    /// Whether it has happened.
    #[cfg(test)]
    pub(crate) fn happened(&self) -> bool {
        let mut fds = [rustix::event::PollFd::new(self, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
    }
}
