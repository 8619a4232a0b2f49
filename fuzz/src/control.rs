//! Packets on the control socket, in both directions.

use std::fmt::Debug;

use plimsoll_protocol::control::{FromVmm, ToVmm};
use plimsoll_protocol::wire::{Wire, WireError};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Receives `input` as a packet; its first bit says which side sent it. What is no message is told
/// by its length, and a message arrives as it was sent.
pub(crate) fn control(input: &[u8]) {
    let Some((direction, packet)) = input.split_first() else { return };
    match direction & 1 {
        0 => receive::<FromVmm>(packet),
        _ => receive::<ToVmm>(packet),
    }
}

fn receive<T: Serialize + DeserializeOwned + Debug>(packet: &[u8]) {
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None);
    let (ours, theirs) = pair.expect("descriptors are left");
    rustix::net::send(&ours, packet, SendFlags::empty()).expect("the packet fits");
    let (ours, theirs) = (Wire::new(ours), Wire::new(theirs));
    let message = match theirs.receive::<T>() {
        Ok((message, descriptors)) => {
            assert!(descriptors.is_empty());
            message
        }
        Err(WireError::Garbled(length)) => return assert_eq!(length, packet.len()),
        Err(WireError::Closed) => return assert!(packet.is_empty()),
        Err(error) => panic!("{error:?}"),
    };
    let encoded = postcard::to_stdvec(&message).expect("a message can be encoded");
    assert!(encoded.len() <= packet.len(), "{message:?} is longer than its packet");
    ours.send(&message, &[]).expect("a message that was received can be sent");
    let (again, _) = theirs.receive::<T>().expect("a message that was sent can be received");
    assert_eq!(postcard::to_stdvec(&again).expect("a message can be encoded"), encoded);
}
