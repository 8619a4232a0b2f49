//! Accepting a connection at a listening socket on which no call waits.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SocketFlags;

/// Pause after [`Accepted::Short`]. Shorter, and a thread looks for descriptors all the time;
/// longer, and programs wait although there are some again.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// What came of looking for a connection.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// One came: a socket on which no call waits.
    Socket(OwnedFd),
    /// None waits, or it is gone again.
    Nothing,
    /// One waits, and the process or the host has no descriptor or memory for it. The socket stays
    /// readable, so look again after [`PAUSE`].
    Short(Errno),
    /// None will come any more.
    Failed(Errno),
}

/// Accepts the next connection at `listener`.
pub(crate) fn accept(listener: impl AsFd) -> Accepted {
    match rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok(socket) => Accepted::Socket(socket),
        Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Accepted::Nothing,
        Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => Accepted::Short(error),
        Err(error) => Accepted::Failed(error),
    }
}
