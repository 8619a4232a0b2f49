//! Signals: whether one is ignored, and ending by one.

use std::io;
use std::mem::MaybeUninit;
use std::process::exit;
use std::ptr;

use rustix::process::{Signal, getpid, kill_process};

/// Whether this process was started with `signal` ignored, as nohup does with SIGHUP, and nothing
/// has handled it since.
///
/// # Errors
/// The kernel's.
pub(crate) fn is_ignored(signal: Signal) -> io::Result<bool> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: no new action is given, so nothing changes; the old one has room for as long as the
    // call takes.
    if unsafe { libc::sigaction(signal.as_raw(), ptr::null(), action.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded and has written it.
    Ok(unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN)
}

/// Ends this process by `signal`, whatever handles it now.
pub(crate) fn end_by(signal: Signal) -> ! {
    // SAFETY: the default action is none of our code, so nothing runs in it.
    unsafe { libc::signal(signal.as_raw(), libc::SIG_DFL) };
    kill_process(getpid(), signal).ok();
    // Only where the signal is blocked: the status is that of a shell whose program ended by it.
    exit(128 + signal.as_raw())
}
