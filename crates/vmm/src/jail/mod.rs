//! The jail: the rights that the VMM gives up before the guest's first instruction.
//!
//! A guest that breaks out of its virtual machine controls this process. It can then use what the
//! jail leaves: the process' own memory, the descriptors that the daemon passed, and the system
//! calls of [`seccomp`].
//!
//! | part | what | without it |
//! |---|---|---|
//! | uid | a user and group of the VM's own, no capabilities | it acts as root |
//! | filesystem | nothing can be opened: an empty root directory, and Landlock without a rule where the kernel has it | it reads the host's files |
//! | seccomp | a list of system calls and of ioctl numbers; any other kills the process | the kernel's whole surface |
//! | file length | no file grows beyond the longest of those that it writes, or the console log's maximum; the daemon raises that when a disk is to grow | it fills the host's file systems |
//! | cgroup | the daemon's part: its memory, threads and processor time are bounded | it takes what others were promised |
//!
//! If a part is unavailable, the VM does not start, unless its definition allows that
//! ([`Rules::allow_missing`]). The order matters: the root directory changes while the process
//! still has the right, and the user changes while the filter still allows it.
//!
//! It closes in two steps. [`close`] comes first, while the process has one thread: users,
//! capabilities and Landlock are per thread in Linux. Then the devices are made, whose threads
//! inherit all that, and whose io_urings need system calls that a running VM does not. Then
//! [`filter`] forbids those, for all threads at once.
//!
//! The boot reader's process ([`crate::boot::reader`]) enters the same jail, and [`filter_reader`]
//! leaves it next to nothing.

mod filesystem;
mod libc_process;
mod seccomp;

use std::io;
use std::os::fd::RawFd;

use plimsoll_protocol::definition::JailPart;
use plimsoll_units::Bytes;
use rustix::time::{ClockId, clock_gettime};

/// Set to `log`, it makes the filter report forbidden system calls to the kernel's log instead of
/// killing the process: for developers of the VMM. The daemon starts VMMs with an environment of
/// its own, so no guest can set it.
const SECCOMP_MODE: &str = "PLIMSOLL_SECCOMP";

/// What the jail has to enforce.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    /// User and group to become.
    pub(crate) uid: Option<u32>,
    /// No file may grow beyond this.
    pub(crate) longest_file: Bytes,
    /// Connections between guest and host that may be open at a time.
    pub(crate) connections: u16,
    /// Parts that may be missing.
    pub(crate) allow_missing: &'a [JailPart],
}

/// A part of the jail is unavailable, and the definition does not allow that.
#[derive(Debug, thiserror::Error)]
#[error(
    "jail: {part} is not available: {}; make it available, or allow it with jail.allow_missing = [\"{part}\"]",
    chain(.why)
)]
pub(crate) struct JailError {
    part: JailPart,
    /// Part of the message, which continues after it; so not given as the source as well.
    why: Missing,
}

/// The error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Why a part of the jail is unavailable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Missing {
    #[error("the daemon gave no user id")]
    NoUid,
    #[error("cannot become user and group {uid}")]
    Uid { uid: u32, source: io::Error },
    #[error("cannot give up privileges")]
    Privileges(#[source] io::Error),
    #[error("neither an empty root directory ({chroot}) nor Landlock ({landlock}) can be had")]
    Filesystem { chroot: io::Error, landlock: String },
    #[error("cannot install the filter of system calls")]
    Seccomp(#[from] seccompiler::Error),
    #[error("cannot build the filter of system calls")]
    Filter(#[from] seccompiler::BackendError),
}

/// Most open files that the jail leaves a VMM with this many connections between guest and host.
pub(crate) fn most_descriptors(connections: u16) -> u64 {
    libc_process::most_descriptors(connections)
}

/// The first step, for a process of one thread: file system and user. Returns the parts that are
/// not in force.
///
/// # Errors
/// The first part that is unavailable and not allowed to be missing.
pub(crate) fn close(rules: Rules<'_>) -> Result<Vec<JailPart>, JailError> {
    libc_process::limit_arenas();
    let filesystem = rules.check(JailPart::Filesystem, filesystem::close())?;
    let uid = rules.check(JailPart::Uid, become_user(rules))?;
    Ok(filesystem.into_iter().chain(uid).collect())
}

/// The second step, for all threads: the filter of system calls. Returns the part if it is not in
/// force.
///
/// # Errors
/// The filter is unavailable and not allowed to be missing.
pub(crate) fn filter(rules: Rules<'_>) -> Result<Option<JailPart>, JailError> {
    // Rustix looks up the kernel's clocks at its first call, which takes a system call or a file of
    // /proc.
    let _first = clock_gettime(ClockId::ThreadCPUTime);
    let log = std::env::var_os(SECCOMP_MODE).is_some_and(|mode| mode == "log");
    let mode = if log { seccomp::Mode::Log } else { seccomp::Mode::Kill };
    rules.check(JailPart::Seccomp, seccomp::apply(mode))
}

/// The second step for the boot reader's process, which answers at descriptor `socket`.
///
/// # Errors
/// As [`filter`].
pub(crate) fn filter_reader(rules: Rules<'_>, socket: RawFd) -> Result<Option<JailPart>, JailError> {
    rules.check(JailPart::Seccomp, seccomp::apply_to_reader(socket))
}

impl Rules<'_> {
    /// Returns an unavailable part if it is allowed to be missing, and an error otherwise.
    fn check(self, part: JailPart, result: Result<(), Missing>) -> Result<Option<JailPart>, JailError> {
        match result {
            Ok(()) => Ok(None),
            Err(why) if self.allow_missing.contains(&part) => {
                tracing::warn!(%part, why = chain(&why), "the jail lacks a part");
                Ok(Some(part))
            }
            Err(why) => Err(JailError { part, why }),
        }
    }
}

/// Gives up root, and everything with which the process could become root again.
fn become_user(rules: Rules<'_>) -> Result<(), Missing> {
    libc_process::limit_file_length(rules.longest_file).map_err(Missing::Privileges)?;
    libc_process::limit_descriptors(rules.connections).map_err(Missing::Privileges)?;
    libc_process::forbid_new_privileges().map_err(Missing::Privileges)?;
    let changed = match rules.uid {
        Some(uid) => libc_process::become_user(uid).map_err(|source| Missing::Uid { uid, source }),
        None => Err(Missing::NoUid),
    };
    // Without capabilities root still owns root's files, but nothing more.
    libc_process::drop_capabilities().map_err(Missing::Privileges)?;
    // Last: the kernel forgets it when a process changes its user.
    libc_process::forbid_core_dumps().map_err(Missing::Privileges)?;
    changed
}

#[cfg(test)]
mod tests;
