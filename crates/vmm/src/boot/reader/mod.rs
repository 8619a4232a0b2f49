//! The boot reader: a process that finds out what the first disk boots.
//!
//! A guest writes its disk, so file systems and boot loaders' configurations on it are hostile, and
//! so are the tables of an image. They are taken apart in a process of its own, which the VMM forks
//! before it has guest memory and before its jail is closed. That process enters the same jail, and
//! then allows itself less: it reads the disk's files, opened anew for reading, and answers at a
//! socket. It has no other descriptor, no guest memory, and bounded memory of its own. It waits for
//! requests for the VM's whole life, because a guest that reboots may have a new kernel by then,
//! and it ends with its VMM.
//!
//! # A disk that the VM's device writes
//!
//! The reader looks at files that the block device has open for writing. Of a raw disk the file
//! says all. Of a qcow2 image the device keeps changes of the tables in memory: what the file says
//! is an older state of the disk, and what the reader remembers of it is older still. Three rules
//! make the reader see what the guest wrote last:
//!
//! 1. **Nothing is written meanwhile.** A VM boots when it has no vCPUs and its devices are reset,
//!    which waits for requests in flight. So no cluster changes its use while it is read.
//! 2. **The device writes its tables out first**, by a flush of its own at each boot
//!    ([`super::loader`]). A flush that fails ends the VM with its reason.
//! 3. **The reader opens the image anew for each [`BootReader::find`]**, with empty caches, and
//!    closes it in [`BootReader::forget`].
//!
//! Without the second rule the reader would see an older state, and no garbage: the order in which
//! tables are written (`metadata.rs` of `plimsoll_image`) leaves a whole image in the file at every
//! moment, and frees a cluster only after the table that no longer names it is durable.
//!
//! The VMM could serve the reader's reads out of the device's own image instead. That would need
//! none of these rules, but a process that reads hostile file systems would then send requests to
//! the VMM during the boot, and the VMM would take tables apart for it. This way descriptors that
//! only read are all that the reader gets, as with a raw disk.
//!
//! | file | is |
//! |---|---|
//! | `link.rs` | the VMM's end of the socket, which takes the reader for hostile |
//! | `message.rs` | what goes over it |
//! | `serve.rs` | the reader's process |
//! | `disk.rs` | the disk and its files as the reader sees them |
//! | `libc_fork.rs` | system calls that make it |

mod disk;
mod libc_fork;
mod link;
mod message;
mod serve;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use plimsoll_image::Format;
use plimsoll_sys::lock;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use self::disk::Files;
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
pub(crate) struct BootChoice {
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
    /// Starts the reader of the disk in `files`: its own file, then its backing files, each with
    /// its format. This process must have one thread, and no guest memory yet.
    ///
    /// # Errors
    /// A file cannot be opened once more, or no process can be started.
    pub(crate) fn start(files: &[(BorrowedFd<'_>, Format)], rules: jail::Rules<'_>) -> Result<Self> {
        let files = Files::reopen(files).context("the disk cannot be opened for its boot reader")?;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .context("a socket for the boot reader")?;
        let parent = std::process::id();
        match libc_fork::fork().context("the boot reader's process")? {
            Forked::Child => serve::run(files, theirs, rules, parent),
            Forked::Parent { child } => Ok(Self(Arc::new(Mutex::new(Link::new(ours, child))))),
        }
    }

    /// Looks at the disk as it is now.
    ///
    /// # Errors
    /// What is on the disk instead of something to boot, or what is wrong with the reader.
    pub(crate) fn find(&self) -> Result<BootChoice> {
        let found = lock(&self.0).find()?;
        let file = |which, len| DiskFile { reader: self.clone(), which, len };
        Ok(BootChoice {
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
