//! Descriptors that this process was started with.

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use plimsoll_protocol::control::CONTROL_FD;
use rustix::io::fcntl_getfd;

/// The control socket, if a descriptor is open where it should be. Only the first call gets it.
pub(crate) fn control_socket() -> Option<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    // SAFETY: the descriptor is only asked about, whether it is open or not.
    let probe = unsafe { BorrowedFd::borrow_raw(CONTROL_FD) };
    fcntl_getfd(probe).ok()?;
    if TAKEN.swap(true, Ordering::SeqCst) {
        return None;
    }
    // SAFETY: it is open, and nothing here owns it: its number is reserved for the control socket
    // by agreement with the daemon.
    Some(unsafe { OwnedFd::from_raw_fd(CONTROL_FD) })
}
