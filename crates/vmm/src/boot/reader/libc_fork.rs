//! System calls that make the boot reader's process, as libc has them.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Most memory for data of the reader. A file system of 32 TiB and the longest configurations that
/// are read take half of that; an image's tables and caches less than 1 MiB a file. An image that
/// takes more, by large compressed clusters in each of its files, ends the reader.
const MAX_DATA: libc::rlim_t = 64 << 20;
/// Most address space: the program and its libraries take some 20 MiB, tests more.
const MAX_ADDRESSES: libc::rlim_t = 1 << 30;

/// Which of the two processes this is.
pub(super) enum Forked {
    /// The one that was there, with the other's descriptor.
    Parent {
        child: OwnedFd,
    },
    Child,
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes a process that goes on here with a copy of all memory, and this thread alone.
pub(super) fn fork() -> io::Result<Forked> {
    // SAFETY: the child has one thread and a copy of all memory. libc leaves its own locks free in
    // it; a lock of Rust's that another thread holds would stay held, and a VMM has no other thread
    // yet.
    let pid = unsafe { libc::fork() };
    check(pid)?;
    match Pid::from_raw(pid) {
        None => Ok(Forked::Child),
        Some(pid) => Ok(Forked::Parent { child: pidfd_open(pid, PidfdFlags::empty())? }),
    }
}

/// Closes all descriptors but `keep`, for a process that never returns to what owns them.
pub(super) fn close_all_but(mut keep: Vec<RawFd>) -> io::Result<()> {
    keep.sort_unstable();
    let end = i64::from(u32::MAX) + 1;
    let mut first = 0;
    for next in keep.into_iter().map(i64::from).chain([end]) {
        if first < next {
            // SAFETY: integers only. What owned the descriptors is neither used nor dropped in this
            // process, which ends by `exit`.
            let result = unsafe { libc::syscall(libc::SYS_close_range, first, next - 1, 0) };
            check(if result < 0 { -1 } else { 0 })?;
        }
        first = next + 1;
    }
    Ok(())
}

/// Has the kernel kill this process when the thread that forked it ends. Call it after the last
/// change of the user, which undoes it.
pub(super) fn end_with_parent(parent: u32) -> io::Result<()> {
    // SAFETY: this prctl takes integers only.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) })?;
    // SAFETY: takes nothing.
    let now = unsafe { libc::getppid() };
    if u32::try_from(now) == Ok(parent) { Ok(()) } else { Err(io::Error::other("the VMM has ended")) }
}

/// Bounds the memory that this process may have.
pub(super) fn limit_memory() -> io::Result<()> {
    for (resource, most) in [(libc::RLIMIT_DATA, MAX_DATA), (libc::RLIMIT_AS, MAX_ADDRESSES)] {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: the structure lives for the call.
        check(unsafe { libc::setrlimit(resource, &raw const limit) })?;
    }
    Ok(())
}

/// Gives memory that is free back to the kernel.
pub(super) fn give_memory_back() {
    // SAFETY: takes an integer.
    unsafe { libc::malloc_trim(0) };
}

/// Ends this process at once: nothing is dropped, nothing that the VMM has buffered is written.
pub(super) fn exit() -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(0) }
}
