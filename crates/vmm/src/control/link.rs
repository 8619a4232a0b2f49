use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use plimsoll_protocol::control::{Facts, ToVmm};
use plimsoll_protocol::definition::JailPart;
use plimsoll_protocol::wire::{Wire, WireError};
use rustix::event::PollFlags;
use rustix::net::SocketFlags;

use super::outbox::Outbox;

/// The VMM's end of the control socket. It accepts one connection at a time, from root or the user
/// that started this process.
///
/// The next connection is accepted only after everything that the last one brought has been read
/// and acted upon, so no grant is lost between two daemons. Until then it waits in the socket's
/// backlog.
pub(crate) struct Link {
    listener: OwnedFd,
    /// The user that started this process. Beside root, only this user may connect.
    starter: u32,
    connection: Option<Connection>,
    pub(crate) outbox: Outbox,
}

#[derive(Debug)]
struct Connection {
    wire: Wire,
    /// The daemon no longer reads; what it has sent is still to be read.
    half_closed: bool,
}

impl Link {
    /// Takes the listening socket.
    ///
    /// # Errors
    /// `listener` is no listening socket, or cannot be made non-blocking.
    pub(crate) fn new(listener: OwnedFd, outbox: Outbox) -> io::Result<Self> {
        rustix::net::sockopt::socket_acceptconn(&listener)?;
        rustix::io::ioctl_fionbio(&listener, true)?;
        rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::CLOEXEC)?;
        let starter = rustix::process::getuid().as_raw();
        Ok(Self { listener, starter, connection: None, outbox })
    }

    /// The descriptor and the events to wait for.
    pub(crate) fn interest(&self) -> (BorrowedFd<'_>, PollFlags) {
        match &self.connection {
            None => (self.listener.as_fd(), PollFlags::IN),
            Some(c) if c.half_closed || !self.outbox.has_next() => (c.wire.as_fd(), PollFlags::IN),
            Some(c) => (c.wire.as_fd(), PollFlags::IN | PollFlags::OUT),
        }
    }

    /// Whether there is no connection. Then the descriptor of [`interest`](Self::interest) is
    /// readable when a connection waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.connection.is_none()
    }

    /// Whether a daemon is connected.
    pub(crate) fn is_up(&self) -> bool {
        self.connection.as_ref().is_some_and(|c| !c.half_closed)
    }

    /// Accepts a waiting connection, unless there is one already, and queues the `Hello`. Returns
    /// whether there is a new one.
    pub(crate) fn accept(&mut self, facts: Facts, running: Option<&[JailPart]>) -> bool {
        if self.connection.is_some() {
            return false;
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = rustix::net::accept_with(&self.listener, flags) else {
            return false; // No connection waits, or it is gone again.
        };
        match rustix::net::sockopt::socket_peercred(&socket) {
            Ok(peer) if peer.uid.is_root() || peer.uid.as_raw() == self.starter => {
                self.connection = Some(Connection { wire: Wire::new(socket), half_closed: false });
                self.outbox.hello(facts, running.map(<[_]>::to_vec));
                true
            }
            peer => {
                tracing::warn!(
                    ?peer,
                    "refused a connection to the control socket: neither root nor the user that started this process"
                );
                false
            }
        }
    }

    /// The next message. `None`: nothing more for now; the connection may have ended.
    pub(crate) fn receive(&mut self) -> Option<(ToVmm, Vec<OwnedFd>)> {
        match self.connection.as_ref()?.wire.receive() {
            Ok(message) => Some(message),
            Err(error) if error.would_block() => None,
            Err(error) => {
                tracing::warn!(%error, "the daemon is gone: the guest goes on");
                self.connection = None;
                None
            }
        }
    }

    /// Sends what the socket takes.
    pub(crate) fn flush(&mut self) {
        let Some(connection) = self.connection.as_mut().filter(|c| !c.half_closed) else { return };
        while let Some(message) = self.outbox.next() {
            let descriptor = self.outbox.descriptor(&message);
            let descriptors: Vec<_> = descriptor.iter().map(|fd| fd.as_fd()).collect();
            match connection.wire.send(&message, &descriptors) {
                Err(error) if error.would_block() => return,
                Err(WireError::TooLong(n)) => tracing::error!(n, "a message is too long and is not sent"),
                Err(error) => {
                    tracing::debug!(%error, "the daemon does not read any more");
                    connection.half_closed = true;
                    return;
                }
                Ok(()) => {}
            }
            self.outbox.sent(&message);
        }
    }
}
