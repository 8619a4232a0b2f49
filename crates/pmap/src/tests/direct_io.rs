//! I/O on a file opened with O_DIRECT, by io_uring or preadv: the kernel reads and writes guest
//! memory behind its back, as it does for a disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use io_uring::squeue::Entry;
use io_uring::{IoUring, opcode, types};

use crate::IoGuard;

/// A file without a page cache in between where the file system has that, so that the kernel works
/// on the pages.
pub(crate) struct Disk {
    file: File,
    ring: Option<IoUring>,
    // Deletes the file.
    _path: tempfile::TempPath,
}

impl Disk {
    /// A disk that is asked by io_uring, if `asynchronous` and not forbidden here, or else by
    /// preadv and pwritev.
    pub(crate) fn new(asynchronous: bool) -> Self {
        // Unlike /tmp, /var/tmp is on a disk almost everywhere.
        let file = tempfile::NamedTempFile::new_in("/var/tmp").or_else(|_| tempfile::NamedTempFile::new());
        let path = file.unwrap().into_temp_path();
        let open = |flags| OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path);
        let file = open(libc::O_DIRECT).or_else(|error| {
            eprintln!("no O_DIRECT here ({error}): I/O in the stress test is buffered");
            open(0)
        });
        let ring = asynchronous.then(|| IoUring::new(4)).and_then(|ring| {
            ring.inspect_err(|error| eprintln!("no io_uring here ({error}): the stress test uses preadv"))
                .ok()
        });
        Self { file: file.unwrap(), ring, _path: path }
    }

    /// Writes the pinned memory to the file.
    pub(crate) fn write(&mut self, guard: &IoGuard) -> io::Result<usize> {
        let (fd, vecs, count) = (self.file.as_raw_fd(), guard.pieces().as_ptr().cast(), guard.pieces().len());
        if let Some(ring) = &mut self.ring {
            return complete(
                ring,
                opcode::Writev::new(types::Fd(fd), vecs, count.try_into().unwrap()).build(),
            );
        }
        // SAFETY: the guard keeps the memory that its iovecs point to; the kernel only reads it.
        result(unsafe { libc::pwritev(fd, vecs, count.try_into().unwrap(), 0) })
    }

    /// Reads the file into the pinned memory.
    pub(crate) fn read(&mut self, guard: &IoGuard) -> io::Result<usize> {
        let (fd, vecs, count) = (self.file.as_raw_fd(), guard.pieces().as_ptr().cast(), guard.pieces().len());
        if let Some(ring) = &mut self.ring {
            return complete(
                ring,
                opcode::Readv::new(types::Fd(fd), vecs, count.try_into().unwrap()).build(),
            );
        }
        // SAFETY: the guard keeps the memory that its iovecs point to. It is guest memory, which is
        // only accessed by volatile and atomic accesses, so the kernel may write it at any time.
        result(unsafe { libc::preadv(fd, vecs, count.try_into().unwrap(), 0) })
    }
}

/// Submits `entry` and waits for its end.
fn complete(ring: &mut IoUring, entry: Entry) -> io::Result<usize> {
    // SAFETY: the memory is kept by the guard that the caller borrows until this returns, after the
    // I/O has ended.
    unsafe { ring.submission().push(&entry) }.unwrap();
    while let Err(error) = ring.submit_and_wait(1) {
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }
    let done = ring.completion().next().unwrap().result();
    usize::try_from(done).map_err(|_| io::Error::from_raw_os_error(-done))
}

fn result(done: isize) -> io::Result<usize> {
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}
