//! Byte-range locks of open file descriptions (`fcntl(2)`, `F_OFD_SETLK`): they last until the last
//! descriptor of the open file is closed, in whatever process.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Locks one byte of `file`, shared with all others that do the same.
///
/// # Errors
/// Another open file has an exclusive lock there, or the file system has no such locks.
pub fn share(file: &File, byte: u64) -> io::Result<()> {
    fcntl(file, libc::F_OFD_SETLK, libc::F_RDLCK, byte).map(drop)
}

/// Whether another open file has a lock on that byte of `file`.
///
/// # Errors
/// The file system has no such locks.
pub fn is_held(file: &File, byte: u64) -> io::Result<bool> {
    let found = fcntl(file, libc::F_OFD_GETLK, libc::F_WRLCK, byte)?;
    Ok(i32::from(found.l_type) != libc::F_UNLCK)
}

fn fcntl(file: &File, command: libc::c_int, kind: libc::c_int, byte: u64) -> io::Result<libc::flock> {
    let narrow = |value: libc::c_int| libc::c_short::try_from(value).map_err(io::Error::other);
    let mut lock = libc::flock {
        l_type: narrow(kind)?,
        l_whence: narrow(libc::SEEK_SET)?,
        l_start: libc::off_t::try_from(byte).map_err(io::Error::other)?,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: both commands read and write one `struct flock`, which `lock` is and which outlives
    // the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
    if result == 0 { Ok(lock) } else { Err(io::Error::last_os_error()) }
}
