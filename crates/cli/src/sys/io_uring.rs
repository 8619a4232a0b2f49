//! io_uring: whether this process may make one.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// `struct io_uring_params` of linux/io_uring.h: 120 bytes, of which all zeros ask for nothing
/// special.
#[repr(C, align(8))]
struct Params([u8; 120]);

/// Makes a ring of one entry and drops it.
///
/// # Errors
/// Why the kernel makes none: `EPERM` where it is forbidden, `ENOSYS` where it does not exist.
pub(crate) fn try_setup() -> io::Result<()> {
    let mut params = Params([0; 120]);
    // SAFETY: the kernel reads and writes one `io_uring_params`, which lives through the call.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut params) };
    let fd = RawFd::try_from(super::result(fd)?).map_err(io::Error::other)?;
    // SAFETY: the kernel just made this descriptor for us and nothing else owns it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}
