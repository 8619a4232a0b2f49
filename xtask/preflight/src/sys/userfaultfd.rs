//! `userfaultfd(2)`: whether this process may use it, through its device or the system call.

use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};

/// The device.
pub(crate) const DEVICE: &str = "/dev/userfaultfd";

/// Whether the device can be opened.
pub(crate) fn device() -> bool {
    File::options().read(true).write(true).open(DEVICE).is_ok()
}

/// Whether the system call is allowed.
pub(crate) fn call() -> bool {
    // SAFETY: the call takes flags only and returns a descriptor or -1.
    let made = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
    let Some(descriptor) = i32::try_from(made).ok().filter(|descriptor| *descriptor >= 0) else {
        return false;
    };
    // SAFETY: the descriptor is new, and nothing else has it.
    drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
    true
}
