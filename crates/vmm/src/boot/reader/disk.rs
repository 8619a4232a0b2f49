use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use plimsoll_bootdisk::{BLOCK, Source};
use plimsoll_image::{Error, FileStorage, Format, Image, chain};
use plimsoll_sys::direct::COARSEST;
use rustix::fs::{OFlags, fcntl_getfl};

const ALIGNMENT: usize = COARSEST as usize;

/// The files of the disk: its own, then its backing files. They are open for reading only.
pub(super) struct Files(Vec<(Arc<FileStorage>, Format)>);

impl Files {
    /// Opens `files` anew: the locks that the daemon took belong to the first opening, and must end
    /// with the VMM, not with its reader.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn reopen(files: &[(BorrowedFd<'_>, Format)]) -> io::Result<Self> {
        let reopen = |&(file, format)| Ok((Arc::new(FileStorage::new(reopen(file)?)?), format));
        Ok(Self(files.iter().map(reopen).collect::<io::Result<_>>()?))
    }

    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.0.iter().map(|(storage, _)| storage.file().as_raw_fd())
    }

    /// The disk as the files have it now.
    ///
    /// # Errors
    /// A file's header or tables are damaged, or cannot be read.
    pub(super) fn disk(&self) -> Result<Disk, Error> {
        let image = chain::stacked(self.0.clone(), false)?;
        Ok(Disk { image, memory: RefCell::new(vec![0; BLOCK + ALIGNMENT]) })
    }
}

fn reopen(file: BorrowedFd<'_>) -> io::Result<File> {
    let direct = fcntl_getfl(file)? & OFlags::DIRECT;
    let flags = i32::try_from(direct.bits()).map_err(io::Error::other)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// The disk as the reader sees it. A file of it may be open for direct I/O, which wants aligned
/// memory.
pub(super) struct Disk {
    image: Image<Arc<FileStorage>>,
    memory: RefCell<Vec<u8>>,
}

impl Disk {
    pub(super) fn size(&self) -> u64 {
        self.image.size()
    }
}

impl Source for Disk {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut memory = self.memory.borrow_mut();
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        let aligned = memory.get_mut(start..).and_then(|rest| rest.get_mut(..buffer.len()));
        let aligned = aligned.ok_or(io::ErrorKind::InvalidInput)?;
        self.image.read(aligned, offset)?;
        buffer.copy_from_slice(aligned);
        Ok(())
    }
}
