//! A thread that waits for guest pages in place of the device's thread.
//!
//! A page may wait for as long as the host is short of memory. The device's own thread must not
//! wait for that: it answers the requests that have ended, and only then their pages can make room
//! for others.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use plimsoll_pmap::{IoGuard, PinRequest};
use plimsoll_sys::Event;

/// The thread's stack: it recurses nowhere and keeps buffers on the heap.
const STACK_SIZE: usize = 128 * 1024;

/// Waits for one pin at a time.
pub(super) struct Pinner {
    /// `None` tells the thread to end.
    requests: Option<Sender<(u16, PinRequest)>>,
    pinned: Receiver<(u16, IoGuard)>,
    bell: Event,
    busy: bool,
    thread: Option<JoinHandle<()>>,
}

impl Pinner {
    /// Starts the thread of the device `name`.
    ///
    /// # Errors
    /// No file descriptor or no thread left.
    pub(super) fn spawn(name: &str) -> io::Result<Self> {
        let (requests, inbox) = mpsc::channel::<(u16, PinRequest)>();
        let (outbox, pinned) = mpsc::channel();
        let bell = Event::new()?;
        let thread_bell = bell.clone();
        let thread =
            thread::Builder::new().name(format!("{name}-pin")).stack_size(STACK_SIZE).spawn(move || {
                for (tag, request) in inbox {
                    if outbox.send((tag, request.wait())).is_err() {
                        break;
                    }
                    thread_bell.signal();
                }
            })?;
        Ok(Self { requests: Some(requests), pinned, bell, busy: false, thread: Some(thread) })
    }

    /// Whether it waits for a pin.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Waits for `request`, which is part of request `tag`. Only while it is not
    /// [busy](Self::is_busy).
    pub(super) fn wait_for(&mut self, tag: u16, request: PinRequest) {
        let requests = self.requests.as_ref().expect("gone only when dropped");
        requests.send((tag, request)).expect("the thread ends when this is dropped");
        self.busy = true;
    }

    /// The pin that it waited for, if it is done.
    pub(super) fn pinned(&mut self) -> Option<(u16, IoGuard)> {
        if !self.busy {
            return None;
        }
        // Cleared before the message is looked for: a later one signals again.
        self.bell.clear();
        let pinned = self.pinned.try_recv().ok()?;
        self.busy = false;
        Some(pinned)
    }

    /// Waits for the pin, and gives it up.
    pub(super) fn cancel(&mut self) {
        if self.busy {
            // An error means that the thread is gone, and its pin with it.
            self.pinned.recv().ok();
            self.busy = false;
        }
    }

    /// Readable when [`Pinner::pinned`] has something; `None` while nothing is waited for.
    pub(super) fn source(&self) -> Option<BorrowedFd<'_>> {
        self.busy.then(|| self.bell.as_fd())
    }
}

impl Drop for Pinner {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic itself.
            thread.join().ok();
        }
    }
}
