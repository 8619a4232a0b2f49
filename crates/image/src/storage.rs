//! What images lie in.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use plimsoll_sys::direct::{Alignment, COARSEST};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::latch::SyncLatch;

/// Bytes with offsets, as of a file. Several threads may use it at the same time.
pub trait Storage: Send + Sync {
    /// Reads `bytes` from `offset` on; what lies beyond the end reads as zeros.
    ///
    /// # Errors
    /// The kernel's.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes `bytes` at `offset`, beyond the end too.
    ///
    /// # Errors
    /// The kernel's.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes durable what was written. After an error, a later call that succeeds makes that
    /// durable too: where storage has lost it, all later calls fail.
    ///
    /// # Errors
    /// The kernel's, or what was written is lost.
    fn sync(&self) -> io::Result<()>;

    /// Gives the space of `length` bytes from `offset` back, which read as zeros then. Does nothing
    /// where the storage cannot.
    ///
    /// # Errors
    /// The kernel's, other than that it cannot.
    fn free(&self, offset: u64, length: u64) -> io::Result<bool>;

    /// Its length.
    ///
    /// # Errors
    /// The kernel's.
    fn length(&self) -> io::Result<u64>;

    /// Writes whose ends are no multiples of this read first what lies around them; nobody else may
    /// write that meanwhile.
    fn block(&self) -> u64 {
        1
    }
}

impl<S: Storage> Storage for Arc<S> {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        (**self).write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        (**self).sync()
    }

    fn free(&self, offset: u64, length: u64) -> io::Result<bool> {
        (**self).free(offset, length)
    }

    fn length(&self) -> io::Result<u64> {
        (**self).length()
    }

    fn block(&self) -> u64 {
        (**self).block()
    }
}

/// A file or a block device. If it is open for direct I/O, what is not aligned takes a buffer.
#[derive(Debug)]
pub struct FileStorage {
    file: File,
    direct: Option<Alignment>,
    latch: SyncLatch,
}

impl FileStorage {
    /// The storage of `file`.
    ///
    /// # Errors
    /// The file is open for direct I/O, which does not work.
    pub fn new(file: File) -> io::Result<Self> {
        let direct = Alignment::of(&file)?;
        Ok(Self { file, direct, latch: SyncLatch::default() })
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The alignment that `bytes` at `offset` lack.
    fn lacks(&self, bytes: &[u8], offset: u64) -> Option<Alignment> {
        self.direct.filter(|direct| {
            !(direct.block_fits(offset)
                && direct.block_fits(bytes.len() as u64)
                && direct.memory_fits(bytes.as_ptr().addr() as u64))
        })
    }

    fn fill(&self, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.file.read_at(bytes, offset) {
                Ok(0) => {
                    bytes.fill(0);
                    return Ok(());
                }
                Ok(count) => {
                    bytes = &mut bytes[count..];
                    offset += count as u64;
                    // Direct I/O ends early, and not at a block, only where the file ends.
                    if self.direct.is_some_and(|direct| !direct.block_fits(offset)) {
                        bytes.fill(0);
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Storage for FileStorage {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let Some(direct) = self.lacks(bytes, offset) else { return self.fill(bytes, offset) };
        let mut around = Around::new(direct, offset, bytes.len());
        let start = around.start;
        self.fill(around.whole(), start)?;
        bytes.copy_from_slice(around.inner());
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let Some(direct) = self.lacks(bytes, offset) else { return self.file.write_all_at(bytes, offset) };
        let mut around = Around::new(direct, offset, bytes.len());
        let start = around.start;
        if !direct.block_fits(offset) || !direct.block_fits(bytes.len() as u64) {
            self.fill(around.whole(), start)?;
        }
        around.inner().copy_from_slice(bytes);
        self.file.write_all_at(around.whole(), start)
    }

    fn sync(&self) -> io::Result<()> {
        if self.direct.is_some() {
            return self.file.sync_data();
        }
        self.latch.check()?;
        self.latch.note(self.file.sync_data())
    }

    fn free(&self, offset: u64, length: u64) -> io::Result<bool> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, offset, length) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn length(&self) -> io::Result<u64> {
        // Also finds that of a block device, whose metadata says zero.
        (&self.file).seek(SeekFrom::End(0))
    }

    fn block(&self) -> u64 {
        self.direct.map_or(1, |direct| direct.block.into())
    }
}

/// An aligned buffer of whole blocks around some bytes.
struct Around {
    memory: Vec<u8>,
    aligned: usize,
    length: usize,
    /// Where in the file it begins.
    start: u64,
    before: usize,
    inner: usize,
}

impl Around {
    fn new(direct: Alignment, offset: u64, inner: usize) -> Self {
        let block = u64::from(direct.block);
        let before = usize::try_from(offset % block).expect("a block is at most a page");
        let length = (before + inner).next_multiple_of(direct.block as usize);
        let memory = vec![0; length + COARSEST as usize];
        let aligned = memory.as_ptr().align_offset(COARSEST as usize);
        Self { memory, aligned, length, start: offset - offset % block, before, inner }
    }

    fn whole(&mut self) -> &mut [u8] {
        &mut self.memory[self.aligned..][..self.length]
    }

    fn inner(&mut self) -> &mut [u8] {
        let (before, inner) = (self.before, self.inner);
        &mut self.whole()[before..][..inner]
    }
}

/// Checks that `length` bytes from `offset` lie on a disk of `size` bytes.
pub(crate) fn within(size: u64, offset: u64, length: usize) -> io::Result<()> {
    let end = offset.checked_add(length as u64);
    if end.is_some_and(|end| end <= size) { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_page_cache_has_lost_is_not_told_to_be_durable() {
        // The kernel syncs no such device.
        let unsynced = || File::options().write(true).open("/dev/null").unwrap();
        let synced = || tempfile::tempfile().unwrap();
        let mut storage = FileStorage::new(synced()).unwrap();
        storage.sync().unwrap();
        storage.file = unsynced();
        storage.sync().unwrap_err();
        storage.file = synced();
        assert!(storage.sync().unwrap_err().to_string().contains("is lost"));
        // Past the page cache nothing is lost that its writer was not told of.
        let mut storage = FileStorage::new(unsynced()).unwrap();
        storage.direct = Some(Alignment { memory: 512, block: 512 });
        storage.sync().unwrap_err();
        storage.file = synced();
        storage.sync().unwrap();
    }
}
