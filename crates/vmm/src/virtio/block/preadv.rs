//! `preadv(2)` and `pwritev(2)` on pinned guest memory.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use plimsoll_pmap::IoGuard;

/// Fills `memory` from `offset` of `file`, and returns how many bytes were read.
pub(super) fn read(file: &File, memory: &IoGuard, offset: u64) -> io::Result<u32> {
    let (count, offset) = arguments(memory, offset)?;
    // SAFETY: the guard keeps the memory that its buffers name mapped during the call; the guest
    // may write it meanwhile, as it may at any time, and nothing here takes a reference to it.
    result(unsafe { libc::preadv(file.as_raw_fd(), memory.iovecs().as_ptr(), count, offset) })
}

/// Writes `memory` to `offset` of `file`, and returns how many bytes were written.
pub(super) fn write(file: &File, memory: &IoGuard, offset: u64) -> io::Result<u32> {
    let (count, offset) = arguments(memory, offset)?;
    // SAFETY: as for reading.
    result(unsafe { libc::pwritev(file.as_raw_fd(), memory.iovecs().as_ptr(), count, offset) })
}

fn arguments(memory: &IoGuard, offset: u64) -> io::Result<(libc::c_int, libc::off_t)> {
    let count = libc::c_int::try_from(memory.iovecs().len()).map_err(io::Error::other)?;
    Ok((count, libc::off_t::try_from(offset).map_err(io::Error::other)?))
}

fn result(returned: isize) -> io::Result<u32> {
    // Negative is an error; the kernel moves less than 2 GiB at a time.
    u32::try_from(returned).map_err(|_| io::Error::last_os_error())
}
