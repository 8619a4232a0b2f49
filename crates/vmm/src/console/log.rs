use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// Most bytes that a console log takes on the host's disk. The log of a boot takes some 100 KB.
/// Less would lose the boot of a guest that has just failed; more is paid for each VM of the host.
pub(crate) const MAX_LOG: u64 = 4 << 20;
/// Bytes that stay when the log is full: half, so that each byte is copied at most once on average.
const KEPT: u64 = MAX_LOG / 2;

/// The console's log file. It never exceeds [`MAX_LOG`]; the newest output is what stays.
#[derive(Debug)]
pub(crate) struct ConsoleLog {
    file: File,
    len: u64,
    /// Bytes lost since the last successful write.
    lost: u64,
}

impl ConsoleLog {
    /// Continues at the end of `file`, which is open for reading and writing.
    ///
    /// # Errors
    /// The file's length cannot be read, or append mode cannot be cleared.
    pub(crate) fn new(file: OwnedFd) -> io::Result<Self> {
        // Positioned writes to a file in append mode go to its end all the same.
        let flags = rustix::fs::fcntl_getfl(&file)?;
        rustix::fs::fcntl_setfl(&file, flags - rustix::fs::OFlags::APPEND)?;
        let file = File::from(file);
        let len = file.metadata()?.len();
        Ok(Self { file, len, lost: 0 })
    }

    /// Appends `bytes`, or the newest [`KEPT`] of them. If the file cannot be written, as on a full
    /// disk, they are lost, and the log says how many once it can be written again.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        let noted = match self.lost {
            0 => self.write(bytes),
            lost => {
                let note =
                    format!("\r\n[plimsoll: {lost} bytes of output lost: the log could not be written]\r\n");
                self.write(&[note.as_bytes(), bytes].concat())
            }
        };
        match noted {
            Ok(()) => self.lost = 0,
            Err(error) => {
                if self.lost == 0 {
                    tracing::warn!(%error, "the console's log cannot be written: output is lost");
                }
                self.lost = self.lost.saturating_add(bytes.len() as u64);
                // What was written in part is not in the log.
                self.file.set_len(self.len).ok();
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let kept = usize::try_from(KEPT).unwrap_or(usize::MAX);
        let bytes = &bytes[bytes.len().saturating_sub(kept)..];
        if self.len + bytes.len() as u64 > MAX_LOG {
            self.shrink()?;
        }
        self.file.write_all_at(bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Moves the newest [`KEPT`] bytes, from a line's beginning, to the front.
    fn shrink(&mut self) -> io::Result<()> {
        let from = self.len.saturating_sub(KEPT);
        let mut kept = vec![0; usize::try_from(self.len - from).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut kept, from)?;
        let line = kept.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
        self.file.write_all_at(&kept[line..], 0)?;
        self.len = (kept.len() - line) as u64;
        self.file.set_len(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded_and_keeps_the_newest() {
        let file = tempfile::tempfile().unwrap();
        let mut log = ConsoleLog::new(file.try_clone().unwrap().into()).unwrap();
        for line in 0..100_000 {
            log.append(format!("line {line:07} of a guest that talks without end .........\n").as_bytes());
            assert!(log.len <= MAX_LOG);
        }
        assert_eq!(file.metadata().unwrap().len(), log.len);
        let mut text = vec![0; usize::try_from(log.len).unwrap()];
        file.read_exact_at(&mut text, 0).unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("line "));
        let first: usize = lines[0][5..12].parse().unwrap();
        assert_eq!(lines.len(), 100_000 - first, "no line between the first and the last is missing");
    }

    #[test]
    fn output_that_cannot_be_written_is_counted_and_told() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let mut log = ConsoleLog::new(File::open("/dev/full").unwrap().into()).unwrap();
        log.append(b"12345");
        log.append(b"678");
        assert_eq!((log.lost, log.len), (8, 0));
        // The disk has room again.
        log.file = path.reopen().unwrap();
        log.append(b"after\n");
        log.append(b"more\n");
        let text = std::fs::read_to_string(path.path()).unwrap();
        assert_eq!(
            text,
            "\r\n[plimsoll: 8 bytes of output lost: the log could not be written]\r\nafter\nmore\n"
        );
    }

    #[test]
    fn an_earlier_run_is_continued_even_in_append_mode() {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), "before\n").unwrap();
        let file = File::options().read(true).append(true).open(path.path()).unwrap();
        let mut log = ConsoleLog::new(file.into()).unwrap();
        log.append(b"after\n");
        log.shrink().unwrap();
        assert_eq!(std::fs::read(path.path()).unwrap(), b"after\n");
    }
}
