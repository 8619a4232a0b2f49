//! preadv and pwritev on a file opened with O_DIRECT: the kernel reads and writes guest memory behind its back, as it
//! does for a disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use plimsoll_units::PAGE_SIZE;

use crate::IoGuard;

/// A file without a page cache in between where the file system has that, so that the kernel works on the pages.
pub(crate) struct Disk {
    file: File,
    // Deletes the file.
    _path: tempfile::TempPath,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let path = tempfile::Builder::new()
            .tempfile_in(env!("CARGO_MANIFEST_DIR"))
            .map(|file| file.into_temp_path());
        let path =
            path.or_else(|_| tempfile::NamedTempFile::new().map(|file| file.into_temp_path())).unwrap();
        let open = |flags| OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path);
        let file = open(libc::O_DIRECT).or_else(|error| {
            eprintln!("no O_DIRECT here ({error}): I/O in the stress test is buffered");
            open(0)
        });
        Self { file: file.unwrap(), _path: path }
    }

    /// Writes the pinned memory to the file, from page `at` of the file on.
    pub(crate) fn write(&self, guard: &IoGuard, at: u64) -> io::Result<usize> {
        let (count, offset) = place(guard, at);
        // SAFETY: the guard keeps the memory that its iovecs point to; the kernel only reads it.
        let done = unsafe { libc::pwritev(self.file.as_raw_fd(), guard.iovecs().as_ptr(), count, offset) };
        usize::try_from(done).map_err(|_| io::Error::last_os_error())
    }

    /// Reads into the pinned memory from page `at` of the file on.
    pub(crate) fn read(&self, guard: &IoGuard, at: u64) -> io::Result<usize> {
        let (count, offset) = place(guard, at);
        // SAFETY: the guard keeps the memory that its iovecs point to. It is guest memory, which is only accessed by
        // volatile and atomic accesses, so the kernel may write it at any time.
        let done = unsafe { libc::preadv(self.file.as_raw_fd(), guard.iovecs().as_ptr(), count, offset) };
        usize::try_from(done).map_err(|_| io::Error::last_os_error())
    }
}

fn place(guard: &IoGuard, at: u64) -> (i32, i64) {
    (i32::try_from(guard.iovecs().len()).unwrap(), i64::try_from(at * PAGE_SIZE).unwrap())
}
