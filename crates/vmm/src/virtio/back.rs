//! The back half of a device: the calls that its thread makes, what they return, and how a driver
//! may break the rules.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::event::PollFlags;

use super::Activation;

/// The back half of a device. All calls come from its worker thread.
pub(super) trait Back: Send + 'static {
    /// Begins to serve the queues: the driver is ready.
    ///
    /// # Errors
    /// A queue that cannot be used: the device stops until it is reset.
    fn start(&mut self, activation: Activation) -> Result<(), Broken>;

    /// Serves `event`, with a bounded amount of work.
    ///
    /// # Errors
    /// The driver broke the rules of a queue: the device stops until it is reset.
    fn serve(&mut self, event: DeviceEvent) -> Result<Progress, Broken>;

    /// Ends what [`start`](Self::start) began: waits for I/O in flight, then drops the queues. Also
    /// called after `start` or `serve` has failed, and without a `start` before.
    fn stop(&mut self);

    /// Takes up what the device's handle has changed. Returns whether the queues are to be served
    /// again. Called after every ring of the worker's bell, started or not.
    fn refresh(&mut self) -> bool {
        false
    }

    /// The file descriptors to wait for beside the queues. Asked before every wait, only while
    /// started.
    fn sources(&self) -> Vec<Source<'_>> {
        Vec::new()
    }

    /// When to be called with [`DeviceEvent::Deadline`]. Asked before every wait, only while
    /// started.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The file descriptors to wait for while not started. Asked before every such wait.
    fn idle_sources(&self) -> Vec<Source<'_>> {
        Vec::new()
    }

    /// When to call [`serve_idle`](Self::serve_idle) with [`DeviceEvent::Deadline`]. Asked before
    /// every wait while not started.
    fn idle_deadline(&self) -> Option<Instant> {
        None
    }

    /// Serves `event` while not started, with a bounded amount of work: a source or the deadline.
    fn serve_idle(&mut self, _event: DeviceEvent) {}
}

/// A file descriptor that a back half waits for.
#[derive(Debug)]
pub(super) struct Source<'a> {
    /// The back half's own number for it, which [`DeviceEvent::Source`] names.
    pub(super) number: u64,
    pub(super) fd: BorrowedFd<'a>,
    /// What to wait for. A descriptor whose other end is gone is always ready.
    pub(super) flags: PollFlags,
}

/// Why the back half is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeviceEvent {
    /// The driver notified this queue.
    Kick(usize),
    /// The one of the [`Back::sources`] or [`Back::idle_sources`] with this number is ready, or was
    /// when they were asked.
    Source(u64),
    /// The [`Back::deadline`] or [`Back::idle_deadline`] has passed.
    Deadline,
}

/// What is left after an event was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing: wait for the next event.
    Done,
    /// More than one call may do: call again, after other events were served.
    More,
}

/// How a driver broke the rules of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The rings are not in guest memory.
    Rings,
    /// The available index ran ahead by more than the queue's size.
    AvailableIndex,
    /// The chain loops, is cut, or is longer than the queue.
    Chain,
    /// A readable buffer after a writable one.
    Order,
    /// A buffer outside of guest memory.
    Address,
    /// A chain without the buffers that the device's protocol wants, or with one beyond its bounds.
    Layout,
    /// Guest memory could not be reached.
    Memory,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rings => "its rings lie outside of guest memory",
            Self::AvailableIndex => "its available index ran ahead by more than its size",
            Self::Chain => "a descriptor chain loops, is cut off or is too long",
            Self::Order => "a readable buffer follows a writable one",
            Self::Address => "a buffer lies outside of guest memory",
            Self::Layout => "a request lacks a buffer or is too long",
            Self::Memory => "guest memory could not be reached",
        })
    }
}
