//! `preadv(2)` and `pwritev(2)`: tasks on the calling thread, where the kernel refuses an io_uring.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::iovec::{Buffers, IoVec};
use crate::task::Task;

/// Does `task` with `file`, and returns how many bytes were read or written: perhaps fewer than
/// the task has.
///
/// # Errors
/// The kernel's.
pub fn carry_out<B: Buffers>(file: &File, task: &mut Task<B>) -> io::Result<usize> {
    let fd = file.as_raw_fd();
    match task {
        Task::Read { offset, to } => {
            let (iovecs, count, offset) = arguments(to.iovecs(), *offset)?;
            // SAFETY: `Buffers` promises that the kernel may write the memory during the call, in
            // which the value is borrowed mutably.
            moved(unsafe { libc::preadv(fd, iovecs, count, offset) })
        }
        Task::Write { offset, from } => {
            let (iovecs, count, offset) = arguments(from.iovecs(), *offset)?;
            // SAFETY: as above, to read it.
            moved(unsafe { libc::pwritev(fd, iovecs, count, offset) })
        }
        Task::Sync => file.sync_data().map(|()| 0),
        Task::Allocate { flags, offset, length } => {
            rustix::fs::fallocate(file, *flags, *offset, *length)?;
            Ok(0)
        }
    }
}

fn arguments(iovecs: &[IoVec], offset: u64) -> io::Result<(*const libc::iovec, libc::c_int, libc::off_t)> {
    let count = libc::c_int::try_from(iovecs.len()).map_err(io::Error::other)?;
    Ok((iovecs.as_ptr().cast(), count, libc::off_t::try_from(offset).map_err(io::Error::other)?))
}

fn moved(returned: isize) -> io::Result<usize> {
    // Negative is an error.
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}
