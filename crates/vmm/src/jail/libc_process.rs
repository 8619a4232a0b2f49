//! System calls that change what this process may do, as libc has them.

use std::io;

use plimsoll_units::Bytes;

/// Most open files of a VMM beside its connections. Some 30 fixed ones, two for each vCPU, up to
/// nine for each of 32 disks and 8 interfaces, and the console's clients come to about 400. A guest
/// that has broken out cannot use up the host's file table; much less would refuse the largest VM.
const MAX_DESCRIPTORS: libc::rlim_t = 512;

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lowers a limit to `most`. A limit that is lower already stays: raising it takes a privilege that
/// the daemon may lack, and the jail does not need it.
fn limit(resource: libc::__rlimit_resource_t, most: libc::rlim_t) -> io::Result<()> {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure lives for the call, which fills it.
    check(unsafe { libc::getrlimit(resource, &raw mut now) })?;
    let most = most.min(now.rlim_max);
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the structure lives for the call.
    check(unsafe { libc::setrlimit(resource, &raw const limit) })
}

/// Keeps guest memory out of core dumps, and from processes of the same user that would read it
/// through `/proc` or ptrace. The daemon, as root, still reads this process' mappings.
pub(super) fn forbid_core_dumps() -> io::Result<()> {
    limit(libc::RLIMIT_CORE, 0)?;
    // SAFETY: this prctl takes integers only.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) })
}

/// Most open files of a VMM with this many connections.
pub(super) fn most_descriptors(connections: u16) -> libc::rlim_t {
    MAX_DESCRIPTORS + libc::rlim_t::from(connections)
}

/// Limits open files to those that a VMM with this many connections needs.
pub(super) fn limit_descriptors(connections: u16) -> io::Result<()> {
    limit(libc::RLIMIT_NOFILE, most_descriptors(connections))
}

/// Forbids to write or extend any file beyond `longest`: such a write fails with `EFBIG`. The
/// signal that comes with it, which would end the process, is ignored.
pub(super) fn limit_file_length(longest: Bytes) -> io::Result<()> {
    // SAFETY: to ignore a signal installs no handler.
    if unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    limit(libc::RLIMIT_FSIZE, longest.0)
}

/// Limits malloc to two arenas: fewer arenas keep less memory. By default malloc makes one for each
/// thread, and when it has made eight it counts the processors in a file that the jail does not
/// have. More than two would serve threads that allocate all the time, which the VMM's do not.
pub(super) fn limit_arenas() {
    // SAFETY: mallopt takes integers only.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
}

/// Keeps programs that this process would start from getting more rights than it has itself.
pub(super) fn forbid_new_privileges() -> io::Result<()> {
    // SAFETY: this prctl takes integers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
}

/// Sets real, effective and saved user and group to `uid`, and drops all further groups.
pub(super) fn become_user(uid: u32) -> io::Result<()> {
    if uid == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "that is root"));
    }
    // SAFETY: an empty list is not read.
    check(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: integers only.
    check(unsafe { libc::setresgid(uid, uid, uid) })?;
    // SAFETY: integers only.
    check(unsafe { libc::setresuid(uid, uid, uid) })
}

/// Drops all capabilities from all sets.
pub(super) fn drop_capabilities() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    /// _LINUX_CAPABILITY_VERSION_3: two words of each set.
    const VERSION: u32 = 0x2008_0522;
    let header = Header { version: VERSION, pid: 0 };
    let none: [Data; 2] = Default::default();
    // SAFETY: capset reads a header and, for this version, two data structures; both live for the
    // call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    check(if result < 0 { -1 } else { 0 })
}

/// Changes the root directory to one that is empty and stays empty: the directory of an ended
/// process in `/proc`.
///
/// A child that shares our root directory (but not our memory) changes it to its own
/// `/proc/self/fdinfo` and ends. No mount and no directory on disk is needed, and nothing is left
/// to clean up.
pub(super) fn enter_empty_root() -> io::Result<()> {
    // The child's calls are prepared here, so that it makes system calls and does nothing else.
    let directory = c"/proc/self/fdinfo";
    let flags = libc::CLONE_FS | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with a null stack this is fork(2), except that the root
    // directory is shared.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if child == 0 {
        // SAFETY: a string that lives as long as the program.
        let changed = unsafe { libc::chroot(directory.as_ptr()) };
        // SAFETY: as above.
        let entered = unsafe { libc::chdir(c"/".as_ptr()) };
        let status = if changed == 0 && entered == 0 { 0 } else { errno().clamp(1, 255) };
        // SAFETY: ends the child at once; nothing of the parent's is run or flushed.
        unsafe { libc::_exit(status) };
    }
    let child = libc::pid_t::try_from(child).map_err(io::Error::other)?;
    check(child)?;
    let mut status = 0;
    loop {
        // SAFETY: `status` lives for the call.
        match check(unsafe { libc::waitpid(child, &raw mut status, 0) }) {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
        (true, 0) => Ok(()),
        (true, errno) => Err(io::Error::from_raw_os_error(errno)),
        _ => Err(io::Error::other("the child that changes the root directory was killed")),
    }
}

fn errno() -> libc::c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
