//! The connection to one VMM.
//!
//! A VMM cannot hold up the daemon: messages that it does not read are kept in a bounded
//! [`Outbox`], and its own are taken no faster than [`RATE`].

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use plimsoll_protocol::control::{FromVmm, ToVmm};
use plimsoll_protocol::wire::{Wire, WireError};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::epoll::{Waited, register};
use crate::outbox::{Letter, Outbox};

/// Most messages of one VMM within [`WINDOW`]: a VM that touches new memory as fast as it can sends
/// one for every 2 MiB chunk, some 5000 a second. Above it the VMM's socket fills and its sender
/// waits.
const RATE: u32 = 1000;
/// See [`RATE`].
const WINDOW: Duration = Duration::from_millis(100);

/// Messages of one VMM that may wait for the thread for shared pages before the next is read. An
/// honest VMM has one question under way, and gives frames back besides. With more, a flood takes
/// more of the daemon's memory; with less, a VMM that gives much back at once is read late.
const BACKLOG: usize = 64;

/// The daemon's end of the connection.
#[derive(Clone, Debug)]
pub(crate) struct Link(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    socket: AsyncFd<Waited<Wire>>,
    outbox: Mutex<Outbox>,
    posted: Notify,
    /// Messages of the VMM that the thread for shared pages has yet to carry out.
    backlog: AtomicUsize,
    shorter: Notify,
}

impl Link {
    /// Takes a connected wire. Must be called within a runtime.
    pub(crate) fn new(wire: Wire) -> std::io::Result<Self> {
        let shared = Shared {
            socket: register(wire, Interest::READABLE | Interest::WRITABLE)?,
            outbox: Mutex::default(),
            posted: Notify::new(),
            backlog: AtomicUsize::new(0),
            shorter: Notify::new(),
        };
        Ok(Self(Arc::new(shared)))
    }

    /// Sends `message` with its descriptors, at once or when the VMM reads. Returns a message that
    /// is not sent: see [`Outbox::put`].
    pub(crate) fn post(&self, message: ToVmm, fds: Vec<OwnedFd>) -> Option<ToVmm> {
        let unsent = self.outbox().put(Letter { message, fds });
        if !self.flush() {
            self.0.posted.notify_one();
        }
        unsent
    }

    /// Sends what waits in the outbox as the VMM reads it. Ends with the connection.
    pub(crate) async fn write(&self) {
        loop {
            if self.flush() {
                self.0.posted.notified().await;
                continue;
            }
            match self.0.socket.ready(Interest::WRITABLE).await {
                Ok(mut ready) if !ready.ready().is_write_closed() => {
                    if !self.flush() {
                        ready.clear_ready_matching(Ready::WRITABLE);
                    }
                }
                _ => return,
            }
        }
    }

    /// A message of the VMM waits for the thread for shared pages.
    pub(crate) fn asked(&self) {
        self.0.backlog.fetch_add(1, Ordering::Relaxed);
    }

    /// It has been carried out.
    pub(crate) fn answered(&self) {
        let one_less = |backlog: usize| Some(backlog.saturating_sub(1));
        // The closure never refuses.
        self.0.backlog.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).ok();
        self.0.shorter.notify_one();
    }

    /// Waits until the thread for shared pages has caught up with the VMM.
    async fn catch_up(&self) {
        while self.0.backlog.load(Ordering::Relaxed) >= BACKLOG {
            self.0.shorter.notified().await;
        }
    }

    /// The next message of the VMM, at the pace of `intake` and of the thread for shared pages;
    /// `None` at the end of the connection.
    ///
    /// # Errors
    /// The bytes are no message of the protocol, or the socket is broken.
    pub(crate) async fn read(&self, intake: &mut Intake) -> Result<Option<FromVmm>, WireError> {
        intake.wait().await;
        self.catch_up().await;
        // A VMM that is known has no descriptors to give: they are closed here.
        match self.receive().await {
            Ok((message, _fds)) => Ok(Some(message)),
            Err(WireError::Closed) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The next message of the VMM, with its descriptors.
    ///
    /// # Errors
    /// The connection has ended, the bytes are no message of the protocol, or the socket is broken.
    pub(crate) async fn receive(&self) -> Result<(FromVmm, Vec<OwnedFd>), WireError> {
        loop {
            let mut ready = self.0.socket.readable().await?;
            match self.0.socket.get_ref().0.receive() {
                Err(e) if e.would_block() => ready.clear_ready(),
                result => return result,
            }
        }
    }

    /// Sends as many messages as the socket takes. Returns whether none is left. Messages for a
    /// closed connection are dropped: its reader notices the end.
    fn flush(&self) -> bool {
        let mut outbox = self.outbox();
        while let Some(letter) = outbox.take() {
            match letter.send(&self.0.socket.get_ref().0) {
                Ok(()) => {}
                Err(e) if e.would_block() => {
                    outbox.put_back(letter);
                    return false;
                }
                Err(e) => {
                    tracing::debug!("{:?} is lost with its connection: {e}", letter.message);
                    return true;
                }
            }
        }
        true
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        plimsoll_sys::lock(&self.0.outbox)
    }
}

/// How fast messages of one VMM are taken.
#[derive(Debug)]
pub(crate) struct Intake {
    window: Instant,
    taken: u32,
}

impl Intake {
    pub(crate) fn new() -> Self {
        Self { window: Instant::now(), taken: 0 }
    }

    async fn wait(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.window) >= WINDOW {
            (self.window, self.taken) = (now, 0);
        }
        self.taken += 1;
        if self.taken > RATE {
            tokio::time::sleep_until(self.window + WINDOW).await;
            (self.window, self.taken) = (Instant::now(), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_units::Pages;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (Wire, Wire) {
        let (a, b) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).unwrap();
        (Wire::new(a), Wire::new(b))
    }

    #[tokio::test]
    async fn a_vmm_that_does_not_read_costs_no_memory_and_loses_no_grant() {
        let (ours, theirs) = pair();
        let link = Link::new(ours).unwrap();
        for i in 0..10_000 {
            link.post(ToVmm::Grant(Pages(1)), Vec::new());
            link.post(ToVmm::BalloonTarget(Pages(i)), Vec::new());
        }
        let writer = tokio::spawn({
            let link = link.clone();
            async move { link.write().await }
        });
        let (mut granted, mut balloon) = (0, Pages(0));
        while granted < 10_000 || balloon != Pages(9_999) {
            match theirs.receive::<ToVmm>() {
                Ok((ToVmm::Grant(pages), _)) => granted += pages.0,
                Ok((ToVmm::BalloonTarget(pages), _)) => balloon = pages,
                Ok((other, _)) => panic!("{other:?}"),
                Err(e) if e.would_block() => tokio::task::yield_now().await,
                Err(e) => panic!("{e}"),
            }
        }
        assert_eq!(granted, 10_000);
        drop(theirs);
        link.post(ToVmm::Query, Vec::new());
        writer.abort();
    }

    #[tokio::test]
    async fn what_was_sent_before_the_end_is_read_and_then_the_end() {
        let (ours, theirs) = pair();
        let link = Link::new(ours).unwrap();
        theirs.send(&FromVmm::Want(Pages(3)), &[]).unwrap();
        drop(theirs);
        let mut intake = Intake::new();
        assert_eq!(link.read(&mut intake).await.unwrap(), Some(FromVmm::Want(Pages(3))));
        assert_eq!(link.read(&mut intake).await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_vmm_is_read_on_when_the_thread_for_shared_pages_has_caught_up() {
        let (ours, theirs) = pair();
        let link = Link::new(ours).unwrap();
        theirs.send(&FromVmm::Want(Pages(3)), &[]).unwrap();
        (0..BACKLOG).for_each(|_| link.asked());
        let mut intake = Intake::new();
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, link.read(&mut intake)).await.is_err());
        link.answered();
        assert_eq!(link.read(&mut intake).await.unwrap(), Some(FromVmm::Want(Pages(3))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_taken_at_a_bounded_rate() {
        let mut intake = Intake::new();
        let begin = Instant::now();
        for _ in 0..10 * RATE {
            intake.wait().await;
        }
        assert!(begin.elapsed() >= 9 * WINDOW);
    }
}
