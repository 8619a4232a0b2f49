//! The socket between daemon and VMM: SEQPACKET, one postcard-encoded message a packet, with file
//! descriptors.
//!
//! A message is at most [`MAX_MESSAGE`] bytes and [`MAX_FDS`] descriptors. What does not decode
//! ends the connection: the other side is broken or hostile. Nothing here blocks unless the socket
//! does; both sides use it non-blocking with their own event loops ([`Wire`] is [`AsFd`]).

use std::io;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest encoded message: a boot configuration with the longest command line takes under 4 KiB.
pub const MAX_MESSAGE: usize = 16 * 1024;
/// Most descriptors with one message: the fixed roles take eight, taps eight, disks and their
/// backing files the others.
pub const MAX_FDS: usize = 64;
/// Most descriptors that the kernel passes with a message (`SCM_MAX_FD`). There is room for all:
/// the kernel closes on the receiving thread what does not fit, and the last close of a large file
/// takes long.
const MOST_PASSED: usize = 253;

/// What can go wrong on a wire.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other side has gone.
    #[error("the other side closed the connection")]
    Closed,
    /// A packet that is no message of the protocol.
    #[error("received a packet of {0} bytes that is no message of this protocol")]
    Garbled(usize),
    /// A message that cannot be sent.
    #[error("a message of {0} bytes exceeds the {MAX_MESSAGE} that the protocol allows")]
    TooLong(usize),
    /// The socket failed; `WouldBlock` where it is non-blocking and not ready.
    #[error("control socket")]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for WireError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl WireError {
    /// Whether the socket was just not ready.
    pub fn would_block(&self) -> bool {
        matches!(self, Self::Io(e) if e.kind() == io::ErrorKind::WouldBlock)
    }
}

/// One end of a control connection: a connected SEQPACKET socket.
#[derive(Debug)]
pub struct Wire(OwnedFd);

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Wire {
    /// Takes a connected SEQPACKET socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Sends one message with its descriptors; all or nothing.
    ///
    /// # Errors
    /// [`WireError::TooLong`]; [`WireError::Closed`]; else the socket's.
    pub fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> Result<(), WireError> {
        let encoded = postcard::to_stdvec(message).map_err(io::Error::other)?;
        if encoded.len() > MAX_MESSAGE {
            return Err(WireError::TooLong(encoded.len()));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other(format!(
                "{} descriptors, at most {MAX_FDS} can be sent",
                fds.len()
            ))
            .into());
        }
        let iov = [IoSlice::new(&encoded)];
        let sent = rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&self.0, &iov, &mut ancillary, SendFlags::NOSIGNAL)
        });
        match sent {
            Ok(_) => Ok(()),
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(WireError::Closed),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Receives one message and the descriptors that came with it (close-on-exec).
    ///
    /// # Errors
    /// [`WireError::Closed`] at the end of the connection, [`WireError::Garbled`] for what is no
    /// message or has not brought all its descriptors, else the socket's.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<(T, Vec<OwnedFd>), WireError> {
        let mut fds = Vec::new();
        let message = self.receive_with(&mut fds)?;
        Ok((message, fds))
    }

    /// The same. Adds the descriptors to `fds`, those of a packet that is no message as well: the
    /// caller decides where they are closed.
    ///
    /// # Errors
    /// As [`Wire::receive`].
    pub fn receive_with<T: DeserializeOwned>(&self, fds: &mut Vec<OwnedFd>) -> Result<T, WireError> {
        let Packet { message, length, is_cut } = self.receive_packet(fds)?;
        if is_cut { Err(WireError::Garbled(length)) } else { Ok(message) }
    }

    /// Receives one message as [`Wire::receive`] does, for a side that trusts the other one. Where
    /// this process may not have all the descriptors, because it has too many files open, there are
    /// none with the message: `None`.
    ///
    /// # Errors
    /// As of [`Wire::receive`].
    pub fn receive_with_or_without<T: DeserializeOwned>(
        &self,
    ) -> Result<(T, Option<Vec<OwnedFd>>), WireError> {
        let mut fds = Vec::new();
        let Packet { message, is_cut, .. } = self.receive_packet(&mut fds)?;
        Ok((message, (!is_cut).then_some(fds)))
    }

    fn receive_packet<T: DeserializeOwned>(&self, fds: &mut Vec<OwnedFd>) -> Result<Packet<T>, WireError> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_PASSED))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut receive = || {
            rustix::io::retry_on_intr(|| {
                let mut iov = [IoSliceMut::new(&mut buffer)];
                rustix::net::recvmsg(&self.0, &mut iov, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            })
        };
        // A side that closes with messages unread leaves this error, once, before what it had sent
        // itself.
        let received = match receive() {
            Err(rustix::io::Errno::CONNRESET) => receive(),
            result => result,
        };
        let received = match received {
            Ok(received) => received,
            Err(rustix::io::Errno::CONNRESET) => return Err(WireError::Closed),
            Err(errno) => return Err(errno.into()),
        };
        let before = fds.len();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                fds.extend(passed);
            }
        }
        let passed = fds.len() - before;
        // A packet of no bytes and the end of the connection look alike, and no message encodes to
        // nothing.
        if received.bytes == 0 {
            return Err(WireError::Closed);
        }
        let length = received.bytes;
        let is_cut = received.flags.contains(ReturnFlags::CTRUNC);
        let is_whole = !received.flags.contains(ReturnFlags::TRUNC) && passed <= MAX_FDS;
        match postcard::take_from_bytes(&buffer[..length]) {
            Ok((message, [])) if is_whole => Ok(Packet { message, length, is_cut }),
            _ => Err(WireError::Garbled(length)),
        }
    }
}

/// What came in one packet.
struct Packet<T> {
    message: T,
    /// Bytes of the message.
    length: usize,
    /// There were more descriptors than came.
    is_cut: bool,
}

#[cfg(test)]
mod tests {
    use plimsoll_units::{FrameNo, PageDigest, PageNo, Pages};
    use proptest::prelude::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;
    use crate::control::{Facts, FromVmm, ToVmm};
    use crate::sharing::{DomainId, Found, MAX_BATCH};

    fn pair() -> (Wire, Wire) {
        let (a, b) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).unwrap();
        (Wire::new(a), Wire::new(b))
    }

    #[test]
    fn messages_and_descriptors_arrive_in_order() {
        let (a, b) = pair();
        let file = std::fs::File::open("/dev/null").unwrap();
        a.send(&ToVmm::Grant(Pages(7)), &[]).unwrap();
        a.send(&ToVmm::PowerButton, &[file.as_fd(), file.as_fd()]).unwrap();
        let (first, none) = b.receive::<ToVmm>().unwrap();
        let (second, two) = b.receive::<ToVmm>().unwrap();
        assert_eq!((first, none.len()), (ToVmm::Grant(Pages(7)), 0));
        assert_eq!((second, two.len()), (ToVmm::PowerButton, 2));
        assert!(b.receive::<ToVmm>().unwrap_err().would_block());
    }

    #[test]
    fn what_was_sent_before_the_end_is_still_read() {
        let (a, b) = pair();
        a.send(&FromVmm::Return(Pages(1)), &[]).unwrap();
        drop(a);
        assert_eq!(b.receive::<FromVmm>().unwrap().0, FromVmm::Return(Pages(1)));
        assert!(matches!(b.receive::<FromVmm>(), Err(WireError::Closed)));
        assert!(matches!(b.send(&ToVmm::Query, &[]), Err(WireError::Closed)));
    }

    #[test]
    fn what_was_sent_before_the_end_is_read_even_if_the_sender_had_not_read_everything() {
        let (a, b) = pair();
        b.send(&ToVmm::Query, &[]).unwrap();
        a.send(&FromVmm::Return(Pages(1)), &[]).unwrap();
        a.send(&FromVmm::Return(Pages(2)), &[]).unwrap();
        drop(a);
        assert_eq!(b.receive::<FromVmm>().unwrap().0, FromVmm::Return(Pages(1)));
        assert_eq!(b.receive::<FromVmm>().unwrap().0, FromVmm::Return(Pages(2)));
        assert!(matches!(b.receive::<FromVmm>(), Err(WireError::Closed)));
    }

    #[test]
    fn facts_survive_the_wire() {
        let (a, b) = pair();
        let facts = Facts { grant: Pages(u64::MAX), guest: Some(Default::default()), ..Facts::default() };
        a.send(&FromVmm::Report(facts), &[]).unwrap();
        assert_eq!(b.receive::<FromVmm>().unwrap().0, FromVmm::Report(facts));
    }

    #[test]
    fn the_largest_batches_of_pages_fit_a_packet() {
        let page = |n: u32| (PageNo(u32::MAX - n), FrameNo(u32::MAX));
        let (domain, id) = (DomainId(u64::MAX), u32::MAX);
        let pages: Vec<_> = (0..512).map(page).collect();
        let digests: Vec<_> = pages.iter().map(|(page, _)| (*page, PageDigest(u128::MAX))).collect();
        assert_eq!(pages.len(), MAX_BATCH);
        let (a, b) = pair();
        a.send(&FromVmm::LookUp { domain, id, pages: digests }, &[]).unwrap();
        a.send(&FromVmm::GiveBack { domain, pages: pages.clone(), mismatched: true }, &[]).unwrap();
        b.send(&ToVmm::Found { id, found: vec![Found::Frame(FrameNo(u32::MAX)); MAX_BATCH] }, &[]).unwrap();
        b.send(&ToVmm::Share { domain, pages }, &[]).unwrap();
    }

    #[test]
    fn descriptors_of_what_is_no_message_are_the_callers_to_close() {
        let (a, b) = pair();
        let file = std::fs::File::open("/dev/null").unwrap();
        let send = |packet: &[u8], count: usize| {
            let fds = vec![file.as_fd(); count];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_PASSED))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
            rustix::net::sendmsg(&a.0, &[IoSlice::new(packet)], &mut ancillary, SendFlags::empty()).unwrap();
        };
        let message = postcard::to_stdvec(&FromVmm::Return(Pages(1))).unwrap();
        for (packet, count) in [(&[0xff; 3][..], 2), (&message, MAX_FDS + 1), (&message, MOST_PASSED)] {
            send(packet, count);
            let mut fds = Vec::new();
            let error = b.receive_with::<FromVmm>(&mut fds).unwrap_err();
            assert!(matches!(error, WireError::Garbled(n) if n == packet.len()), "{error}");
            assert_eq!(fds.len(), count);
        }
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_never_a_panic(packet in prop::collection::vec(any::<u8>(), 1..200)) {
            let (a, b) = pair();
            rustix::net::send(&a.0, &packet, SendFlags::empty()).unwrap();
            match b.receive::<FromVmm>() {
                Ok((message, _)) => prop_assert_eq!(postcard::to_stdvec(&message).unwrap().len() <= packet.len(), true),
                Err(e) => prop_assert!(matches!(e, WireError::Garbled(n) if n == packet.len())),
            }
        }
    }
}
