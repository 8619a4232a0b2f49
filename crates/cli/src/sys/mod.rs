//! The system interfaces that `doctor` probes, one module each; the only unsafe code of this
//! program. Each probe asks and changes nothing.

pub(crate) mod io_uring;
pub(crate) mod kvm;
pub(crate) mod landlock;
pub(crate) mod pagemap;
pub(crate) mod userfaultfd;

use std::io;

/// The result of a system call that gives a number, or its error.
fn result(number: libc::c_long) -> io::Result<libc::c_long> {
    if number < 0 { Err(io::Error::last_os_error()) } else { Ok(number) }
}
