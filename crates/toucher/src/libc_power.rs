//! Processes and power: `fork` and `waitpid` for hog and worker, `reboot` for the end of the guest.

use std::io;

/// How a child ended.
pub(crate) enum End {
    /// By a signal of this number.
    Signal(i32),
    /// By itself, with this status.
    Status(i32),
}

/// Runs `child` in a forked process and returns how that process ended. `child` must not return
/// normally with anything of value: the process ends after it.
pub(crate) fn in_child(child: impl FnOnce()) -> io::Result<End> {
    // SAFETY: this program has one thread, so the child finds no lock held by a thread that is
    // gone.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            child();
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(0) }
        }
        pid => wait(pid),
    }
}

/// Runs `child` in a forked process that ends after it, and returns that process's id. It dies with
/// the thread that started it.
///
/// `child` must neither allocate nor take a lock where this process has several threads.
pub(crate) fn child(child: impl FnOnce()) -> io::Result<i32> {
    // SAFETY: the child only runs `child`, which keeps to the rule above.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: takes no pointers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            child();
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(0) }
        }
        pid => Ok(pid),
    }
}

/// Reaps the orphans that ended, as a machine's first process has to: each keeps memory of the
/// kernel until then. Elsewhere nothing is done.
pub(crate) fn reap() {
    if std::process::id() != 1 {
        return;
    }
    // SAFETY: a null status is allowed; no child of ours that is waited for elsewhere has ended by
    // now.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

fn wait(pid: i32) -> io::Result<End> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for the result.
        if unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    if libc::WIFSIGNALED(status) {
        return Ok(End::Signal(libc::WTERMSIG(status)));
    }
    Ok(End::Status(libc::WEXITSTATUS(status)))
}

/// Turns the machine off. Returns only when refused.
pub(crate) fn power_off() -> io::Error {
    reboot(libc::RB_POWER_OFF)
}

/// Restarts the machine. Returns only when refused.
pub(crate) fn restart() -> io::Error {
    reboot(libc::RB_AUTOBOOT)
}

fn reboot(how: i32) -> io::Error {
    // SAFETY: takes no pointers.
    unsafe { libc::sync() };
    // SAFETY: takes no pointers; without the privilege it is refused.
    unsafe { libc::reboot(how) };
    io::Error::last_os_error()
}
