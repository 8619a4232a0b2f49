use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::accept::{Accepted, PAUSE, accept};

/// Where clients connect.
#[derive(Debug)]
pub(super) struct Listener {
    /// `None`: no client can, or not any more.
    socket: Option<OwnedFd>,
    /// No client is accepted before: there was no descriptor for one.
    closed_until: Option<Instant>,
}

impl Listener {
    /// Takes a listening stream socket, if there is one.
    ///
    /// # Errors
    /// It cannot be made non-blocking.
    pub(super) fn new(socket: Option<OwnedFd>) -> io::Result<Self> {
        if let Some(socket) = &socket {
            rustix::io::ioctl_fionbio(socket, true)?;
        }
        Ok(Self { socket, closed_until: None })
    }

    /// What to wait for before [`Listener::accept`]; `None`: nothing now.
    pub(super) fn source(&self, now: Instant) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().filter(|_| self.closed_for(now).is_none()).map(AsFd::as_fd)
    }

    /// How long there will be no source though there may be clients.
    pub(super) fn closed_for(&self, now: Instant) -> Option<Duration> {
        let left = self.closed_until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Accepts the next client; `None`: none waits, or there is no descriptor for it.
    pub(super) fn accept(&mut self, now: Instant) -> Option<OwnedFd> {
        match accept(self.socket.as_ref()?) {
            Accepted::Socket(socket) => return Some(socket),
            Accepted::Nothing => {}
            Accepted::Short(error) => {
                tracing::warn!(%error, "the console cannot accept a client now");
                self.closed_until = Some(now + PAUSE);
            }
            Accepted::Failed(error) => {
                tracing::error!(%error, "the console accepts no more clients");
                self.socket = None;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;
    use crate::own_process::{is_own, limit_descriptors, use_up_descriptors};

    #[test]
    fn a_client_for_which_there_is_no_descriptor_is_accepted_later() {
        if !is_own("console::listener::tests::a_client_for_which_there_is_no_descriptor_is_accepted_later") {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console");
        let mut listener = Listener::new(Some(UnixListener::bind(&path).unwrap().into())).unwrap();
        let now = Instant::now();
        assert!(listener.accept(now).is_none() && listener.source(now).is_some());
        let _client = UnixStream::connect(&path).unwrap();
        let limit = use_up_descriptors();
        assert!(listener.accept(now).is_none());
        assert!(listener.source(now).is_none() && listener.closed_for(now) == Some(PAUSE));
        limit_descriptors(limit);
        let later = now + PAUSE;
        assert!(listener.source(later).is_some() && listener.closed_for(later).is_none());
        assert!(listener.accept(later).is_some());
    }
}
