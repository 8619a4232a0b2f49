//! Linux eventfds: what `vmm-sys-util` leaves out of its wrapper.

use std::os::fd::{AsRawFd, BorrowedFd};

use vmm_sys_util::eventfd::EventFd;

/// The file descriptor of `eventfd`, to wait for it.
pub(super) fn as_fd(eventfd: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the eventfd keeps its descriptor open for as long as it is borrowed here.
    unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) }
}
