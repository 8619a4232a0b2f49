use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use plimsoll_protocol::definition::{CONNECTION_BUFFER, SOCKET_BUFFER};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

/// The host's end of a connection: a stream socket, on which no call waits, and what it has not
/// taken yet.
#[derive(Debug)]
pub(super) struct HostStream {
    socket: OwnedFd,
    /// At most [`CONNECTION_BUFFER`] bytes; without memory while it is empty.
    backlog: VecDeque<u8>,
    /// The other end is told that nothing more comes.
    writing_ended: bool,
}

/// What came of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// So many bytes, at least one.
    Bytes(usize),
    /// None now.
    Nothing,
    /// No more for ever.
    End,
}

/// The other end takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

impl AsFd for HostStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl HostStream {
    /// Takes a connected stream socket, and bounds what the kernel keeps in it.
    ///
    /// # Errors
    /// The bound cannot be set.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        set_socket_send_buffer_size(&socket, SOCKET_BUFFER as usize)?;
        Ok(Self { socket, backlog: VecDeque::new(), writing_ended: false })
    }

    /// Sends `bytes`, and keeps those that the socket does not take. The caller keeps to the bound:
    /// `bytes` and what is kept already are at most [`CONNECTION_BUFFER`]. Returns how many the
    /// socket took.
    ///
    /// # Errors
    /// The other end takes no more; nothing is kept.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<usize, Gone> {
        let sent = if self.is_behind() { 0 } else { self.send_now(bytes)? };
        let rest = &bytes[sent..];
        if !rest.is_empty() {
            debug_assert!(self.backlog.len() + rest.len() <= CONNECTION_BUFFER as usize);
            if self.backlog.capacity() == 0 {
                self.backlog = VecDeque::with_capacity(CONNECTION_BUFFER as usize);
            }
            self.backlog.extend(rest);
        }
        Ok(sent)
    }

    /// Sends what is kept as far as the socket takes it. Returns how many bytes it took.
    ///
    /// # Errors
    /// The other end takes no more; nothing is kept.
    pub(super) fn flush(&mut self) -> Result<usize, Gone> {
        let mut flushed = 0;
        while self.is_behind() {
            let backlog = std::mem::take(&mut self.backlog);
            let sent = self.send_now(backlog.as_slices().0)?;
            self.backlog = backlog;
            self.backlog.drain(..sent);
            flushed += sent;
            if sent == 0 {
                return Ok(flushed);
            }
        }
        self.backlog = VecDeque::new();
        Ok(flushed)
    }

    /// Whether there are bytes that the socket has not taken.
    pub(super) fn is_behind(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Reads into `buffer`, which is not empty.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> Received {
        let mut receive = || {
            rustix::io::retry_on_intr(|| {
                rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT).map(|(count, _)| count)
            })
        };
        // An end that is closed with bytes unread leaves this error, once, before the end.
        let received = match receive() {
            Err(Errno::CONNRESET) => receive(),
            received => received,
        };
        match received {
            Ok(0) => Received::End,
            Ok(count) => Received::Bytes(count),
            Err(Errno::AGAIN) => Received::Nothing,
            Err(_) => Received::End,
        }
    }

    /// Whether the other end takes no more.
    pub(super) fn is_closed(&self) -> bool {
        self.send_now(&[]).is_err()
    }

    /// Tells the other end that nothing more comes, once all that is kept was sent.
    pub(super) fn end_writing(&mut self) {
        if !std::mem::replace(&mut self.writing_ended, true) {
            // It fails where the other end is gone, which then needs no telling.
            rustix::net::shutdown(&self.socket, Shutdown::Write).ok();
        }
    }

    /// Whether [`HostStream::end_writing`] was called.
    pub(super) fn has_ended_writing(&self) -> bool {
        self.writing_ended
    }

    /// Refuses what the other end sends from now on.
    pub(super) fn end_reading(&self) {
        // As in `end_writing`.
        rustix::net::shutdown(&self.socket, Shutdown::Read).ok();
    }

    fn send_now(&self, bytes: &[u8]) -> Result<usize, Gone> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::io::retry_on_intr(|| rustix::net::send(&self.socket, bytes, flags)) {
            Ok(sent) => Ok(sent),
            // Kernels short of memory answer as full sockets do: the next look tries again.
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => Ok(0),
            Err(_) => Err(Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (HostStream, HostStream) {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        (HostStream::new(ours).unwrap(), HostStream::new(theirs).unwrap())
    }

    #[test]
    fn what_an_end_does_not_read_is_kept_within_the_bound_and_arrives_in_order() {
        let (mut ours, theirs) = pair();
        let bytes: Vec<u8> = (0..=250).cycle().take(1 << 20).collect();
        let (mut given, mut kept, mut got) = (0, 0, Vec::<u8>::new());
        let mut buffer = [0; 5000];
        while got.len() < bytes.len() {
            kept -= ours.flush().unwrap();
            let room = (CONNECTION_BUFFER as usize - kept).min(bytes.len() - given);
            let sent = ours.send(&bytes[given..given + room]).unwrap();
            (given, kept) = (given + room, kept + room - sent);
            assert_eq!(ours.is_behind(), kept > 0);
            assert!(ours.backlog.capacity() <= CONNECTION_BUFFER as usize);
            if let Received::Bytes(count) = theirs.receive(&mut buffer) {
                got.extend(&buffer[..count]);
            }
        }
        assert!(got == bytes);
        assert!(!ours.is_behind() && ours.backlog.capacity() == 0, "an empty backlog takes no memory");
    }

    #[test]
    fn the_kernel_keeps_little_for_an_end_that_does_not_read() {
        let (ours, _theirs) = pair();
        let mut kept = 0;
        while let Ok(sent @ 1..) = ours.send_now(&[7; 4096]) {
            kept += sent;
        }
        assert!((1..=4 * SOCKET_BUFFER as usize).contains(&kept), "{kept} bytes");
    }

    #[test]
    fn half_of_a_stream_ends_without_the_other() {
        let (mut ours, mut theirs) = pair();
        ours.send(b"last words").unwrap();
        ours.end_writing();
        let mut buffer = [0; 100];
        assert_eq!(theirs.receive(&mut buffer), Received::Bytes(10));
        assert_eq!(theirs.receive(&mut buffer), Received::End);
        assert!(!theirs.is_closed());
        theirs.send(b"an answer").unwrap();
        assert_eq!(ours.receive(&mut buffer), Received::Bytes(9));
        assert_eq!(ours.receive(&mut buffer), Received::Nothing);
        drop(ours);
        assert!(theirs.is_closed());
        assert_eq!(theirs.send(b"too late"), Err(Gone));
        assert!(!theirs.is_behind());
    }

    #[test]
    fn what_was_sent_before_a_close_is_read_although_the_closer_had_not_read_all() {
        let (mut ours, mut theirs) = pair();
        ours.send(b"unread").unwrap();
        theirs.send(b"sent before").unwrap();
        drop(theirs);
        let mut buffer = [0; 100];
        assert_eq!(ours.receive(&mut buffer), Received::Bytes(11));
        assert_eq!(ours.receive(&mut buffer), Received::End);
    }
}
