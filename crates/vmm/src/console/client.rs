use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{RecvFlags, SendFlags};

/// Most bytes of output that wait for a client. A client that falls further behind is dropped, so
/// that it costs the VMM no more than this. Less would drop terminals that scroll slowly.
const MAX_BEHIND: usize = 256 * 1024;

/// A client of the console: a connected stream socket, on which no call blocks.
#[derive(Debug)]
pub(super) struct Client {
    socket: OwnedFd,
    behind: VecDeque<u8>,
}

/// Why a client is to be dropped.
#[derive(Debug, thiserror::Error)]
pub(super) enum Gone {
    #[error("it closed the connection")]
    Closed,
    #[error("it is more than {MAX_BEHIND} bytes behind")]
    Slow,
    #[error("its socket failed")]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for Gone {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Client {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, behind: VecDeque::new() }
    }

    /// Sends `bytes`, or keeps them until the socket has room.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        if self.behind.len() + bytes.len() > MAX_BEHIND {
            return Err(Gone::Slow);
        }
        self.behind.extend(bytes);
        self.flush()
    }

    /// Sends what the socket has room for.
    pub(super) fn flush(&mut self) -> Result<(), Gone> {
        while !self.behind.is_empty() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let (front, _) = self.behind.as_slices();
            match rustix::io::retry_on_intr(|| rustix::net::send(&self.socket, front, flags)) {
                Ok(sent) => drop(self.behind.drain(..sent)),
                Err(rustix::io::Errno::AGAIN) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Reads what the client typed into `buffer`. Returns zero if there is nothing to read.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> Result<usize, Gone> {
        match rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT).map(|(n, _)| n)
        }) {
            Ok(0) => Err(Gone::Closed),
            Ok(n) => Ok(n),
            Err(rustix::io::Errno::AGAIN) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether output waits for room.
    pub(super) fn is_behind(&self) -> bool {
        !self.behind.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn a_client_that_does_not_read_is_dropped_not_waited_for() {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let mut client = Client::new(ours);
        let block = vec![b'x'; 64 * 1024];
        let mut blocks = 0;
        while client.send(&block).is_ok() {
            blocks += 1;
            assert!(blocks < 1000, "never dropped");
        }
        drop(theirs);
        // A program that another test starts holds it until it has executed.
        let deadline = Instant::now() + Duration::from_secs(60);
        while client.flush().is_ok() {
            assert!(Instant::now() < deadline, "the end is never noticed");
            std::thread::yield_now();
        }
        assert!(matches!(client.flush(), Err(Gone::Io(_))));
    }
}
