//! The connection to one VMM.
//!
//! A VMM cannot hold up the daemon: messages that it does not read are kept in a bounded
//! [`Outbox`], and its own are taken no faster than [`Intake`] has it: there is no way to read a
//! message past it.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use plimsoll_protocol::control::{FromVmm, ToVmm};
use plimsoll_protocol::wire::{Wire, WireError};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;

use crate::closing::Closing;
use crate::epoll::{Waited, register};
use crate::intake::Intake;
use crate::outbox::{Letter, Outbox};

/// Messages of one VMM that may wait for the thread for shared pages before the next is read. An
/// honest VMM has one question under way, and gives frames back besides. With more, a flood takes
/// more of the daemon's memory; with less, a VMM that gives much back at once is read late.
const BACKLOG: usize = 64;

/// Pause after a message could not be sent although the VMM is there: the kernel is short of memory
/// for it. Shorter, and the daemon does little else; longer, and grants are late.
const RETRY: Duration = Duration::from_millis(100);

/// What came of sending what waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flushed {
    /// Nothing is left.
    All,
    /// The VMM has to read first.
    Full,
    /// The kernel refuses it for now.
    Refused,
}

/// Why a VMM is read no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Only the greeting of a connection brings descriptors.
    #[error("it passed {0} descriptors with a message that has none")]
    Descriptors(usize),
}

/// The daemon's end of the connection.
#[derive(Clone, Debug)]
pub(crate) struct Link(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Messages that are never read may bring descriptors.
    socket: AsyncFd<Waited<Closing<Wire>>>,
    outbox: Mutex<Outbox>,
    posted: Notify,
    /// The last message was refused, and the log says so.
    refused: AtomicBool,
    /// Messages of the VMM that the thread for shared pages has yet to carry out.
    backlog: AtomicUsize,
    shorter: Notify,
}

impl Link {
    /// Takes a connected wire. Must be called within a runtime.
    pub(crate) fn new(wire: Wire) -> std::io::Result<Self> {
        let shared = Shared {
            socket: register(Closing::new(wire), Interest::READABLE | Interest::WRITABLE)?,
            outbox: Mutex::default(),
            posted: Notify::new(),
            refused: AtomicBool::new(false),
            backlog: AtomicUsize::new(0),
            shorter: Notify::new(),
        };
        Ok(Self(Arc::new(shared)))
    }

    /// Sends `message` with its descriptors, at once or when the VMM reads. Returns a message that
    /// is not sent: see [`Outbox::put`].
    pub(crate) fn post(&self, message: ToVmm, fds: Vec<OwnedFd>) -> Option<ToVmm> {
        let unsent = self.outbox().put(Letter { message, fds });
        if self.flush() != Flushed::All {
            self.0.posted.notify_one();
        }
        unsent
    }

    /// Sends what waits in the outbox as the VMM reads it. Ends with the connection.
    pub(crate) async fn write(&self) {
        loop {
            match self.flush() {
                Flushed::All => self.0.posted.notified().await,
                Flushed::Refused => tokio::time::sleep(RETRY).await,
                Flushed::Full => match self.0.socket.ready(Interest::WRITABLE).await {
                    Ok(mut ready) if !ready.ready().is_write_closed() => {
                        if self.flush() == Flushed::Full {
                            ready.clear_ready_matching(Ready::WRITABLE);
                        }
                    }
                    _ => return,
                },
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
    /// The bytes are no message of the protocol, descriptors came with it, or the socket is broken.
    pub(crate) async fn read(&self, intake: &mut Intake) -> Result<Option<FromVmm>, ReadError> {
        self.catch_up().await;
        match self.receive(intake).await {
            Ok((message, fds)) if fds.is_empty() => Ok(Some(message)),
            Ok((_, fds)) => Err(ReadError::Descriptors(fds.len())),
            Err(WireError::Closed) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// The next message of the VMM, with its descriptors, at the pace of `intake`.
    ///
    /// # Errors
    /// The connection has ended, the bytes are no message of the protocol, or the socket is broken.
    pub(crate) async fn receive(
        &self,
        intake: &mut Intake,
    ) -> Result<(FromVmm, Vec<Closing<OwnedFd>>), WireError> {
        intake.wait().await;
        // A socket that is always readable never has its task wait, and the runtime has one thread.
        consume_budget().await;
        loop {
            let mut ready = self.0.socket.readable().await?;
            let mut fds = Vec::new();
            let received = self.0.socket.get_ref().0.receive_with(&mut fds);
            let fds: Vec<_> = fds.into_iter().map(Closing::new).collect();
            match received {
                Err(e) if e.would_block() => ready.clear_ready(),
                received => return received.map(|message| (message, fds)),
            }
        }
    }

    /// Sends as many messages as the socket takes. Messages for a closed connection are dropped:
    /// its reader notices the end. What the kernel refuses for now stays, because a VMM is told
    /// only once what it has been granted.
    fn flush(&self) -> Flushed {
        let mut outbox = self.outbox();
        let flushed = loop {
            let Some(letter) = outbox.take() else { break Flushed::All };
            match letter.send(&self.0.socket.get_ref().0) {
                Ok(()) => self.0.refused.store(false, Ordering::Relaxed),
                Err(WireError::Closed) => {
                    tracing::debug!("{:?} is lost with its connection", letter.message);
                    break Flushed::All;
                }
                Err(e) if e.would_block() => {
                    outbox.put_back(letter);
                    break Flushed::Full;
                }
                Err(e) if letter.can_be_sent_after(&e) => {
                    if !self.0.refused.swap(true, Ordering::Relaxed) {
                        tracing::warn!(error = ?e, "{:?} cannot be sent now", letter.message);
                    }
                    outbox.put_back(letter);
                    break Flushed::Refused;
                }
                Err(e) => tracing::error!(error = ?e, "{:?} cannot be sent", letter.message),
            }
        };
        outbox.bound();
        flushed
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        plimsoll_sys::lock(&self.0.outbox)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use plimsoll_units::Pages;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;
    use crate::intake::Talkers;

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

    #[tokio::test(start_paused = true)]
    async fn a_message_that_the_kernel_refuses_is_sent_later() {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = || rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let directory = tempfile::tempdir().unwrap();
        let address = rustix::net::SocketAddrUnix::new(directory.path().join("vmm")).unwrap();
        let listener = socket().unwrap();
        rustix::net::bind(&listener, &address).unwrap();
        rustix::net::listen(&listener, 1).unwrap();
        // Not connected yet: the kernel refuses to send, and the connection has not ended.
        let ours = socket().unwrap();
        let connects = ours.try_clone().unwrap();
        let link = Link::new(Wire::new(ours)).unwrap();
        link.post(ToVmm::Grant(Pages(7)), Vec::new());
        let writer = tokio::spawn({
            let link = link.clone();
            async move { link.write().await }
        });
        tokio::time::sleep(10 * RETRY).await;
        link.post(ToVmm::Grant(Pages(3)), Vec::new());
        rustix::net::connect(&connects, &address).unwrap();
        let theirs = Wire::new(rustix::net::accept(&listener).unwrap());
        tokio::time::sleep(2 * RETRY).await;
        assert_eq!(theirs.receive::<ToVmm>().unwrap().0, ToVmm::Grant(Pages(10)));
        writer.abort();
    }

    #[tokio::test]
    async fn what_was_sent_before_the_end_is_read_and_then_the_end() {
        let (ours, theirs) = pair();
        let link = Link::new(ours).unwrap();
        theirs.send(&FromVmm::Want(Pages(3)), &[]).unwrap();
        drop(theirs);
        let mut intake = Intake::new(Talkers::default());
        assert_eq!(link.read(&mut intake).await.unwrap(), Some(FromVmm::Want(Pages(3))));
        assert_eq!(link.read(&mut intake).await.unwrap(), None);
    }

    #[tokio::test]
    async fn descriptors_end_the_connection_and_are_closed() {
        let (ours, theirs) = pair();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let link = Link::new(ours).unwrap();
        theirs.send(&FromVmm::Want(Pages(3)), &[write.as_fd(), write.as_fd()]).unwrap();
        drop(write);
        let error = link.read(&mut Intake::new(Talkers::default())).await.unwrap_err();
        assert_eq!(error.to_string(), "it passed 2 descriptors with a message that has none");
        // The end of the pipe, once nobody can write to it.
        let mut buffer = [0; 1];
        assert_eq!(rustix::io::read(&read, &mut buffer).unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_vmm_is_read_on_when_the_thread_for_shared_pages_has_caught_up() {
        let (ours, theirs) = pair();
        let link = Link::new(ours).unwrap();
        theirs.send(&FromVmm::Want(Pages(3)), &[]).unwrap();
        (0..BACKLOG).for_each(|_| link.asked());
        let mut intake = Intake::new(Talkers::default());
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, link.read(&mut intake)).await.is_err());
        link.answered();
        assert_eq!(link.read(&mut intake).await.unwrap(), Some(FromVmm::Want(Pages(3))));
    }
}
