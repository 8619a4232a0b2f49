//! The file that frames are in.
//!
//! Not taken: mapping it here, to write frames without system calls. That saves a copy, but a page
//! that the kernel refuses (a memory limit) would be a signal instead of an error.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use plimsoll_units::{FrameNo, PAGE_SIZE, Pages};
use rustix::fs::{self, FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags, SeekFrom};

use crate::error::Error;

/// The content of a page.
pub(crate) type Page = [u8; 4096];

/// Seals that keep the file's length: members map it, and a file that shrinks under a mapping kills
/// them.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// The file behind the frames: a memfd with room for all possible frames, and holes where there are
/// none.
///
/// Only this process writes it. Members get a read-only descriptor. The file belongs to the
/// daemon's user and has mode 0400, so another user who opens the descriptor anew through /proc
/// gets no more than reading. (F_SEAL_FUTURE_WRITE would do as much, but forbids punching holes.)
#[derive(Debug)]
pub(crate) struct Pool {
    file: File,
}

impl Pool {
    /// An empty pool for `limit` frames.
    pub(crate) fn new(limit: Pages) -> Result<Self, Error> {
        let no_memory = Error::pool("making a file for", "free some memory or raise the limit of open files");
        let file = File::from(memfd().map_err(no_memory)?);
        let too_long = Error::pool("sizing the file of", "lower the limit of shared frames");
        fs::ftruncate(&file, limit.bytes().0).map_err(too_long)?;
        let unsealed = Error::pool("sealing the file of", "run Linux 6.1 or newer");
        fs::fcntl_add_seals(&file, SEALS).map_err(unsealed)?;
        let mode = Error::pool("protecting the file of", "run Linux 6.1 or newer");
        fs::fchmod(&file, Mode::RUSR).map_err(mode)?;
        Ok(Self { file })
    }

    /// The pool behind `descriptor`, which may be a read-only one, as members hold it.
    ///
    /// Refuses a descriptor of anything else than a sealed memfd of whole pages. Only the caller
    /// can check, by the inode, that it is *the* pool.
    pub(crate) fn reopen(descriptor: &OwnedFd) -> Result<Self, Error> {
        let seals =
            fs::fcntl_get_seals(descriptor).map_err(|_| Error::NotAPool { problem: "it is no memfd" })?;
        if !seals.contains(SEALS) {
            return Err(Error::NotAPool { problem: "its size is not sealed" });
        }
        let hint = "run the daemon as the user that it ran as before";
        let file = match open(descriptor, OFlags::RDWR) {
            Err(rustix::io::Errno::ACCESS) => {
                // The owner may be a user other than root, whom mode 0400 keeps from writing as
                // well.
                fs::fchmod(descriptor, Mode::RUSR | Mode::WUSR)
                    .map_err(Error::pool("opening the file of", hint))?;
                open(descriptor, OFlags::RDWR)
            }
            opened => opened,
        };
        // In any case: the earlier daemon may not have done it.
        fs::fchmod(descriptor, Mode::RUSR).map_err(Error::pool("protecting the file of", hint))?;
        let pool = Self { file: File::from(file.map_err(Error::pool("opening the file of", hint))?) };
        if !pool.length()?.is_multiple_of(PAGE_SIZE) {
            return Err(Error::NotAPool { problem: "it is not made of whole pages" });
        }
        Ok(pool)
    }

    /// A descriptor through which frames can be read and mapped, and nothing else.
    pub(crate) fn reader(&self) -> io::Result<OwnedFd> {
        Ok(open(&self.file, OFlags::RDONLY)?)
    }

    /// How many frames the file is long.
    pub(crate) fn limit(&self) -> Result<Pages, Error> {
        Ok(Pages(self.length()? / PAGE_SIZE))
    }

    /// Writes whole frames, from `first` on.
    pub(crate) fn write(&self, first: FrameNo, content: &[Page]) -> io::Result<()> {
        self.file.write_all_at(content.as_flattened(), first.offset())
    }

    /// Reads a whole frame; a hole reads as zeros and stays a hole.
    pub(crate) fn read(&self, frame: FrameNo, content: &mut Page) -> io::Result<()> {
        self.file.read_exact_at(content, frame.offset())
    }

    /// Whether a frame has memory. Takes the same time however many frames follow that have some.
    pub(crate) fn has_data(&self, frame: FrameNo) -> io::Result<bool> {
        match fs::seek(&self.file, SeekFrom::Data(frame.offset())) {
            Err(rustix::io::Errno::NXIO) => Ok(false),
            found => Ok(found? == frame.offset()),
        }
    }

    /// The first run of frames from `from` on that have memory, used or not.
    pub(crate) fn data(&self, from: FrameNo) -> io::Result<Option<(FrameNo, Pages)>> {
        let start = match fs::seek(&self.file, SeekFrom::Data(from.offset())) {
            Err(rustix::io::Errno::NXIO) => return Ok(None),
            result => result? / PAGE_SIZE,
        };
        let end = fs::seek(&self.file, SeekFrom::Hole(start * PAGE_SIZE))?.div_ceil(PAGE_SIZE);
        let first = u32::try_from(start).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        Ok(Some((FrameNo(first), Pages(end.saturating_sub(start)))))
    }

    /// Gives the memory of `frames` frames from `first` on back to the host. They read as zeros
    /// afterwards, in mappings too.
    pub(crate) fn punch(&self, first: FrameNo, frames: Pages) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        loop {
            match fs::fallocate(&self.file, flags, first.offset(), frames.bytes().0) {
                Err(rustix::io::Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Machine memory that the file takes.
    pub(crate) fn resident(&self) -> io::Result<Pages> {
        /// The unit of `st_blocks`, whatever the file system's own.
        const BLOCK: u64 = 512;
        let blocks = fs::fstat(&self.file)?.st_blocks;
        Ok(Pages(u64::try_from(blocks).unwrap_or(0) / (PAGE_SIZE / BLOCK)))
    }

    fn length(&self) -> Result<u64, Error> {
        let stat =
            fs::fstat(&self.file).map_err(Error::pool("looking at the file of", "restart the daemon"))?;
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }
}

fn memfd() -> rustix::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match fs::memfd_create(c"plimsoll-frames", flags | MemfdFlags::NOEXEC_SEAL) {
        // Linux before 6.3 does not have this flag. The file's mode forbids to execute it anyway.
        Err(rustix::io::Errno::INVAL) => fs::memfd_create(c"plimsoll-frames", flags),
        result => result,
    }
}

/// A new descriptor of the file behind `descriptor`.
fn open(descriptor: impl AsFd, access: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd());
    fs::open(path, access | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests;
