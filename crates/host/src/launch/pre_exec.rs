//! What a child process does between fork and exec: `pre_exec`, and `dup2` in it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use plimsoll_protocol::control::CONTROL_FD;

/// Has the child of `command` lead a session of its own, with `control` as its [`CONTROL_FD`]. Keep
/// `control` open until the child has started.
pub(super) fn in_session_of_its_own<'a>(command: &'a mut Command, control: &OwnedFd) -> &'a mut Command {
    let raw = control.as_raw_fd();
    let in_child = move || {
        rustix::process::setsid()?;
        // SAFETY: duplicates a descriptor onto a number that only `reserve_control_fd` uses.
        let duplicate = unsafe { libc::dup2(raw, CONTROL_FD) };
        if duplicate == CONTROL_FD { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes two system calls and neither allocates nor takes locks; its errors
    // carry only numbers.
    unsafe { command.pre_exec(in_child) }
}
