//! `prctl(PR_SET_PDEATHSIG)` for children: they die with the thread that started them, whatever
//! ends it.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Signal;

/// Makes `command`'s process be killed when the thread that spawns it ends, and lets it inherit
/// `descriptors` (which must be open when it is spawned). It gets a process group of its own, so
/// that a terminal's interrupt reaches us first.
pub(crate) fn die_with_parent(command: &mut Command, descriptors: Vec<RawFd>) {
    let parent = rustix::process::getpid();
    command.process_group(0);
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above took effect.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::other("the parent is gone"));
        }
        for descriptor in &descriptors {
            // SAFETY: the caller keeps the descriptor open until the child runs; this is the
            // child's copy of it.
            let descriptor = unsafe { BorrowedFd::borrow_raw(*descriptor) };
            rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only; it allocates nothing and takes no lock between
    // fork and exec.
    unsafe { command.pre_exec(prepare) };
}
