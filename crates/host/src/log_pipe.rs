//! A pipe that carries a VMM's messages to its log. The daemon empties it at a bounded rate.
//! Messages above that rate are lost, so no VMM fills a disk.
//!
//! The pipe has a name in the run directory. It outlives the daemon with the VM: messages stay in
//! it until it is full, and the next daemon reads them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags, mknodat};
use tokio::io::Interest;
use tokio::time::sleep;

use crate::epoll::{Owner, register};

/// The pipe's name in the run directory.
const NAME: &str = "log";
/// Most that is read at a time: what a pipe holds.
const CHUNK: usize = 64 << 10;
/// Bytes that are read in a second, in the long run: a VMM that works writes some lines, and a boot
/// with `log = "debug"` some 100 KB. Logs are cut each second, so this is how much one may be too
/// long.
const RATE: u64 = 256 << 10;
/// Pause after each move of messages, however few: what is written meanwhile is moved together.
/// Shorter, and a VMM that writes single bytes has a thread of the daemon open its log all the
/// time; longer, and the pipe of one that talks at the full rate is full.
const PAUSE: Duration = Duration::from_millis(10);

/// The daemon's end of a VMM's log.
#[derive(Debug)]
pub(crate) struct LogPipe {
    pipe: File,
    log: PathBuf,
}

impl LogPipe {
    /// Makes the pipe in `directory`, for the log at `log`. Returns the VMM's end as well.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn create(directory: &Path, log: PathBuf) -> io::Result<(Self, File)> {
        let path = directory.join(NAME);
        mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let pipe = Self::open(directory, log)?;
        // Open for reading as well: a VMM can write while there is no daemon.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let writer = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path)?;
        Ok((pipe, writer))
    }

    /// Opens the daemon's end of a pipe that an earlier daemon made.
    ///
    /// # Errors
    /// There is no such pipe; or the kernel's error.
    pub(crate) fn open(directory: &Path, log: PathBuf) -> io::Result<Self> {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let pipe = OpenOptions::new().read(true).custom_flags(flags).open(directory.join(NAME))?;
        Ok(Self { pipe, log })
    }

    /// Moves what is in the pipe now to the log. Returns how much; `None`: the VMM is gone, and the
    /// pipe empty. What cannot be written is lost.
    pub(crate) fn pump(&self) -> Option<u64> {
        let mut bytes = vec![0; CHUNK];
        let read = match (&self.pipe).read(&mut bytes) {
            Ok(0) => return None,
            Ok(read) => read,
            Err(_) => return Some(0), // It is empty.
        };
        let log = OpenOptions::new().append(true).open(&self.log);
        if let Err(e) = log.and_then(|mut log| log.write_all(&bytes[..read])) {
            tracing::debug!("messages of a VMM are lost: {}: {e}", self.log.display());
        }
        Some(read as u64)
    }

    /// Moves all that comes to the log until the VMM is gone. Must be called within a runtime.
    pub(crate) async fn run(self) {
        let pipe = Arc::new(self);
        let Ok(wakes) = register(Arc::clone(&pipe), Interest::READABLE) else { return };
        while let Ok(mut ready) = wakes.readable().await {
            let pipe = Arc::clone(&pipe);
            match tokio::task::spawn_blocking(move || pipe.pump()).await {
                Ok(Some(0)) => ready.clear_ready(),
                Ok(Some(moved)) => sleep(PAUSE.max(Duration::from_micros(moved * 1_000_000 / RATE))).await,
                Ok(None) | Err(_) => return,
            }
        }
    }
}

impl AsFd for LogPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl Owner for Arc<LogPipe> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe() -> (tempfile::TempDir, LogPipe, File, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("a.vmm");
        File::create(&log).unwrap();
        let (pipe, writer) = LogPipe::create(directory.path(), log.clone()).unwrap();
        (directory, pipe, writer, log)
    }

    #[tokio::test(start_paused = true)]
    async fn a_vmm_that_talks_without_end_neither_waits_nor_fills_the_log() {
        let (_directory, pipe, mut writer, log) = pipe();
        let moving = tokio::spawn(pipe.run());
        let begin = tokio::time::Instant::now();
        let (mut written, mut lost) = (0, 0);
        while begin.elapsed() < Duration::from_secs(4) {
            match writer.write(&[b'x'; 4096]) {
                Ok(n) => written += n as u64,
                Err(e) => {
                    assert_eq!(e.kind(), io::ErrorKind::WouldBlock);
                    lost += 1;
                    sleep(Duration::from_millis(10)).await;
                }
            }
        }
        drop(writer);
        moving.await.unwrap();
        assert!(lost > 0);
        assert_eq!(std::fs::metadata(&log).unwrap().len(), written, "what was written is there");
        assert!(written <= 6 * RATE, "{written}");
    }

    #[tokio::test(start_paused = true)]
    async fn single_bytes_are_moved_together() {
        let (_directory, pipe, mut writer, log) = pipe();
        let moving = tokio::spawn(pipe.run());
        let (begin, mut written) = (tokio::time::Instant::now(), 0);
        while begin.elapsed() < Duration::from_secs(1) {
            writer.write_all(b"x").unwrap();
            written += 1;
            while std::fs::metadata(&log).unwrap().len() < written {
                sleep(Duration::from_micros(500)).await;
            }
        }
        assert!(written <= 110, "{written} moves in a second");
        drop(writer);
        moving.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_written_without_a_daemon_is_there_for_the_next() {
        let (directory, pipe, mut writer, log) = pipe();
        drop(pipe);
        writer.write_all(b"alone\n").unwrap();
        let pipe = LogPipe::open(directory.path(), log.clone()).unwrap();
        let moving = tokio::spawn(pipe.run());
        writer.write_all(b"and not\n").unwrap();
        drop(writer);
        moving.await.unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "alone\nand not\n");
        assert!(LogPipe::open(&directory.path().join("nowhere"), log).is_err());
    }
}
