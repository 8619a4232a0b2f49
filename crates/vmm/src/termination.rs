//! The signals that ask a process to end, SIGTERM and SIGINT: the guest is asked to shut down.
//!
//! A service manager that stops everything sends them, and an operator with `kill`. A VM is
//! somebody's machine, and its file systems want to be unmounted: so its power button is pressed,
//! once for each signal that the control thread sees. A guest that does not react runs on until the
//! process is killed.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use vmm_sys_util::signal::register_signal_handler;

use crate::mailbox::Mailbox;

static ASKED: AtomicBool = AtomicBool::new(false);
static MAILBOX: OnceLock<Arc<Mailbox>> = OnceLock::new();

/// Takes no lock, allocates nothing and leaves `errno` alone: it runs between any two instructions.
extern "C" fn asked(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    ASKED.store(true, Ordering::Release);
    if let Some(mailbox) = MAILBOX.get() {
        mailbox.wake();
    }
}

/// Has the signals wake the control thread through `mailbox` instead of ending the process.
///
/// # Errors
/// The kernel does not take a handler.
pub(crate) fn watch(mailbox: Arc<Mailbox>) -> io::Result<()> {
    MAILBOX.set(mailbox).ok();
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let registered = register_signal_handler(signal, asked);
        registered.map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
    }
    Ok(())
}

/// Whether such a signal has come since the last call.
pub(crate) fn take() -> bool {
    ASKED.swap(false, Ordering::AcqRel)
}
