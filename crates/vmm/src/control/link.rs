use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use plimsoll_protocol::control::{Facts, ToVmm};
use plimsoll_protocol::definition::JailPart;
use plimsoll_protocol::wire::{Wire, WireError};
use rustix::event::PollFlags;

use super::outbox::Outbox;
use crate::accept::{Accepted, accept};

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
    /// Descriptors were lost on this connection, and the log says so.
    is_short: bool,
    pub(crate) outbox: Outbox,
}

/// What came of [`Link::accept`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// There is a new connection.
    Taken,
    /// There is none.
    None,
    /// One waits, and there is no descriptor for it now.
    Waits,
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
        Ok(Self { listener, starter, connection: None, is_short: false, outbox })
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

    /// Accepts a waiting connection, unless there is one already, and queues the `Hello`.
    pub(crate) fn accept(&mut self, facts: Facts, running: Option<&[JailPart]>) -> Call {
        if self.connection.is_some() {
            return Call::None;
        }
        let socket = match accept(&self.listener) {
            Accepted::Socket(socket) => socket,
            Accepted::Short(error) => {
                tracing::warn!(%error, "the daemon's connection cannot be accepted now");
                return Call::Waits;
            }
            Accepted::Nothing | Accepted::Failed(_) => return Call::None,
        };
        match rustix::net::sockopt::socket_peercred(&socket) {
            Ok(peer) if peer.uid.is_root() || peer.uid.as_raw() == self.starter => {
                self.connection = Some(Connection { wire: Wire::new(socket), half_closed: false });
                self.is_short = false;
                self.outbox.hello(facts, running.map(<[_]>::to_vec));
                Call::Taken
            }
            peer => {
                tracing::warn!(
                    ?peer,
                    "refused a connection to the control socket: neither root nor the user that started this process"
                );
                Call::None
            }
        }
    }

    /// The next message. `None`: nothing more for now; the connection may have ended.
    ///
    /// A message whose descriptors this process may not have has none: it is refused by itself, and
    /// the connection goes on.
    pub(crate) fn receive(&mut self) -> Option<(ToVmm, Vec<OwnedFd>)> {
        match self.connection.as_ref()?.wire.receive_with_or_without() {
            Ok((message, fds)) => {
                if fds.is_none() && !std::mem::replace(&mut self.is_short, true) {
                    tracing::warn!(
                        "this process has too many files open: descriptors of the daemon are lost"
                    );
                }
                Some((message, fds.unwrap_or_default()))
            }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

    use super::*;
    use crate::mailbox::Mailbox;
    use crate::own_process::{is_own, limit_descriptors, use_up_descriptors};
    use crate::sharing::Exchange;

    /// A link, and what connects to it.
    fn link() -> (Link, impl Fn() -> Wire, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let address = SocketAddrUnix::new(directory.path().join("control")).unwrap();
        let socket = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
        };
        let listener = socket();
        rustix::net::bind(&listener, &address).unwrap();
        rustix::net::listen(&listener, 2).unwrap();
        let outbox = Outbox::new(Arc::new(Exchange::new(Arc::new(Mailbox::new().unwrap()))));
        let connect = move || {
            let socket = socket();
            rustix::net::connect(&socket, &address).unwrap();
            Wire::new(socket)
        };
        (Link::new(listener, outbox).unwrap(), connect, directory)
    }

    #[test]
    fn a_process_without_descriptors_loses_those_of_a_message_and_not_its_daemon() {
        let name = "a_process_without_descriptors_loses_those_of_a_message_and_not_its_daemon";
        if !is_own(&format!("control::link::tests::{name}")) {
            return;
        }
        let (mut link, connect, _directory) = link();
        let daemon = connect();
        assert_eq!(link.accept(Facts::default(), None), Call::Taken);
        let file = std::fs::File::open("/dev/null").unwrap();
        let dialed = |id| ToVmm::Dialed { id, connected: true };
        let limit = use_up_descriptors();
        for id in 0..3 {
            daemon.send(&dialed(id), &[file.as_fd()]).unwrap();
        }
        daemon.send(&ToVmm::Query, &[]).unwrap();
        for id in 0..3 {
            let (message, fds) = link.receive().unwrap();
            assert_eq!((message, fds.len()), (dialed(id), 0));
        }
        assert!(matches!(link.receive(), Some((ToVmm::Query, fds)) if fds.is_empty()));
        assert!(link.receive().is_none() && link.is_up());
        limit_descriptors(limit);
        daemon.send(&dialed(3), &[file.as_fd()]).unwrap();
        assert!(matches!(link.receive(), Some((ToVmm::Dialed { id: 3, .. }, fds)) if fds.len() == 1));
    }

    #[test]
    fn a_daemon_for_whose_connection_there_is_no_descriptor_waits() {
        if !is_own("control::link::tests::a_daemon_for_whose_connection_there_is_no_descriptor_waits") {
            return;
        }
        let (mut link, connect, _directory) = link();
        assert_eq!(link.accept(Facts::default(), None), Call::None);
        let _daemon = connect();
        let limit = use_up_descriptors();
        assert_eq!(link.accept(Facts::default(), None), Call::Waits);
        limit_descriptors(limit);
        assert_eq!(link.accept(Facts::default(), None), Call::Taken);
    }
}
