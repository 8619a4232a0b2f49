//! The boot reader: a process that finds out what the first disk boots.
//!
//! A guest writes its disk, so file systems and boot loaders' configurations on it are hostile.
//! They are taken apart in a process of their own, which the VMM forks before it has guest memory
//! and before its jail is closed. That process enters the same jail, and then allows itself less:
//! it reads the disk, opened anew for reading, and answers at a socket. It has no other descriptor,
//! no guest memory, and bounded memory of its own. It waits for requests for the VM's whole life,
//! because a guest that reboots may have a new kernel by then, and it ends with its VMM.
//!
//! | file | is |
//! |---|---|
//! | `link.rs` | the VMM's end of the socket, which takes the reader for hostile |
//! | `message.rs` | what goes over it |
//! | `serve.rs` | the reader's process |
//! | `disk.rs` | the disk as the reader sees it |
//! | `libc_fork.rs` | system calls that make it |

mod disk;
mod libc_fork;
mod link;
mod message;
mod serve;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use plimsoll_sys::lock;
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use self::libc_fork::Forked;
use self::link::Link;
use self::message::Which;
use super::file::BootFile;
use crate::jail;

/// The VMM's side of the reader. It is killed when this is dropped.
#[derive(Clone)]
pub(crate) struct BootReader(Arc<Mutex<Link>>);

/// What the disk boots.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) kernel: DiskFile,
    pub(crate) initrd: Option<DiskFile>,
    /// Printable ASCII.
    pub(crate) cmdline: String,
    /// The entry, where it stands, and its kernel: for people.
    pub(crate) description: String,
}

/// A file on the disk, read through the reader.
#[derive(Debug)]
pub(crate) struct DiskFile {
    reader: BootReader,
    which: Which,
    len: u64,
}

impl BootReader {
    /// Starts the reader of `disk`. This process must have one thread, and no guest memory yet.
    ///
    /// # Errors
    /// The disk cannot be opened once more, or no process can be started.
    pub(crate) fn start(disk: impl AsFd, rules: jail::Rules<'_>) -> Result<Self> {
        let disk = reopen(disk).context("the disk cannot be opened for its boot reader")?;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .context("a socket for the boot reader")?;
        let parent = std::process::id();
        match libc_fork::fork().context("the boot reader's process")? {
            Forked::Child => serve::run(disk, theirs, rules, parent),
            Forked::Parent { child } => Ok(Self(Arc::new(Mutex::new(Link::new(ours, child))))),
        }
    }

    /// Looks at the disk as it is now.
    ///
    /// # Errors
    /// What is on the disk instead of something to boot, or what is wrong with the reader.
    pub(crate) fn find(&self) -> Result<Found> {
        let found = lock(&self.0).find()?;
        let file = |which, len| DiskFile { reader: self.clone(), which, len };
        Ok(Found {
            kernel: file(Which::Kernel, found.kernel),
            initrd: (found.initrd > 0).then(|| file(Which::Initrd, found.initrd)),
            cmdline: found.cmdline,
            description: found.description,
        })
    }

    /// Has the reader close what it found: its files cannot be read any more.
    ///
    /// # Errors
    /// What is wrong with the reader.
    pub(crate) fn forget(&self) -> io::Result<()> {
        lock(&self.0).forget()
    }
}

impl fmt::Debug for BootReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BootReader")
    }
}

impl BootFile for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        lock(&self.reader.0).read(self.which, buffer, offset)
    }
}

/// Opens `disk` anew, for reading only: the locks that the daemon took belong to the first opening,
/// and must end with the VMM, not with its reader.
fn reopen(disk: impl AsFd) -> io::Result<File> {
    let direct = fcntl_getfl(&disk)? & OFlags::DIRECT;
    let flags = i32::try_from(direct.bits()).map_err(io::Error::other)?;
    let path = format!("/proc/self/fd/{}", disk.as_fd().as_raw_fd());
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}
