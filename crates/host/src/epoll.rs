//! Descriptors that the runtime waits for, through epoll.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use plimsoll_protocol::wire::Wire;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::closing::Closing;

/// Owns one descriptor for all its life, which [`AsFd`] returns.
pub(crate) trait Owner: AsFd {}

impl Owner for OwnedFd {}
impl Owner for Closing<Wire> {}

/// An [`Owner`] as the runtime wants it.
#[derive(Debug)]
pub(crate) struct Waited<T>(pub(crate) T);

impl<T: Owner> AsRawFd for Waited<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Lets the runtime wait for `interest` in `owner`'s descriptor. Must be called within a runtime.
///
/// # Errors
/// The kernel's.
pub(crate) fn register<T: Owner>(owner: T, interest: Interest) -> io::Result<AsyncFd<Waited<T>>> {
    // SAFETY: an owner keeps the one descriptor that it returns open until it is dropped, and the
    // registration owns it.
    let registered = unsafe { AsyncFd::register_with_interest(Waited(owner), interest) };
    registered.map_err(|e| e.into_parts().1)
}
