//! The signal that makes a vCPU's thread leave the guest.

use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;

use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// Its only effect is to interrupt the system call that the thread is in.
extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Has the signal do nothing instead of ending the process. May be called again.
pub(super) fn prepare() -> io::Result<()> {
    register_signal_handler(SIGRTMIN(), nothing).map_err(|error| io::Error::from_raw_os_error(error.errno()))
}

/// Sends it.
pub(super) fn kick<T>(thread: &JoinHandle<T>) {
    // SAFETY: the handle keeps the thread's identity valid, whether it has ended or not.
    unsafe { libc::pthread_kill(thread.as_pthread_t(), SIGRTMIN()) };
}

/// What sends it. Not to be called any more when the thread is joined.
pub(super) fn kicker<T>(thread: &JoinHandle<T>) -> Box<dyn Fn() + Send> {
    let thread = thread.as_pthread_t();
    // SAFETY: a thread that has not been joined has a valid identity, whether it has ended or not.
    Box::new(move || unsafe {
        libc::pthread_kill(thread, SIGRTMIN());
    })
}
