//! The descriptor that this process was started with.

use std::os::fd::{FromRawFd, OwnedFd};

use plimsoll_protocol::control::CONTROL_FD;

/// The control socket, which listens. Call it once.
pub(crate) fn control_socket() -> OwnedFd {
    // SAFETY: the daemon passes the listening socket there, and nothing else in this process uses
    // it.
    unsafe { OwnedFd::from_raw_fd(CONTROL_FD) }
}
