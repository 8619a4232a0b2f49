//! `preadv(2)` and `pwritev(2)` on a task's buffers.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::content::swap::task::Task;

/// Reads or writes what is not done yet of `task`, and returns how many bytes were.
pub(super) fn carry_out(file: &File, task: &mut Task) -> io::Result<usize> {
    let offset = libc::off_t::try_from(task.offset()).map_err(io::Error::other)?;
    let iovecs = task.iovecs();
    let count = libc::c_int::try_from(iovecs.len()).map_err(io::Error::other)?;
    let moved = if task.is_write() {
        // SAFETY: the buffers belong to the task, are not changed while it has them, and outlive
        // the call.
        unsafe { libc::pwritev(file.as_raw_fd(), iovecs.as_ptr(), count, offset) }
    } else {
        // SAFETY: the buffers belong to the task alone, which is borrowed mutably for the call.
        unsafe { libc::preadv(file.as_raw_fd(), iovecs.as_ptr(), count, offset) }
    };
    // Negative is an error.
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}
