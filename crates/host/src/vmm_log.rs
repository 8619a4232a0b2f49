//! Keeps VMMs' logs small. [`crate::log_pipe`] bounds what they grow by in a second.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Longest log: a VMM that works writes a few lines. The log may be longer by one second's
/// messages.
const MOST: u64 = 1 << 20;
/// Bytes that stay of a log that is too long. Its end tells why the VMM is in trouble.
const KEPT: u64 = 256 << 10;

/// Cuts the log at `path` if it is too long. A message that is written at that moment may be lost.
pub(crate) fn cut(path: &Path) {
    if let Err(e) = try_cut(path)
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("cannot cut the log {}: {e}", path.display());
    }
}

fn try_cut(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.len() <= MOST {
        return Ok(());
    }
    let mut file = OpenOptions::new().read(true).append(true).open(path)?;
    let kept = tail(&file, KEPT)?;
    file.set_len(0)?;
    file.write_all(&kept)
}

/// Longest console log. A VMM keeps its own below 4 MiB.
const MOST_CONSOLE: u64 = 8 << 20;

/// Empties the console log at `path` if it is longer than a VMM makes it. Only a VMM that its guest
/// has taken over does that: it writes to the log directly, and can make it as long as its swap
/// space.
pub(crate) fn bound_console(path: &Path) {
    let too_long = |file: &File| file.metadata().is_ok_and(|m| m.len() > MOST_CONSOLE);
    let emptied = match OpenOptions::new().write(true).open(path) {
        Ok(file) if too_long(&file) => file.set_len(0),
        _ => return,
    };
    tracing::warn!(
        "the console log {} is longer than a VMM makes it, and emptied: {emptied:?}",
        path.display()
    );
}

/// At most the last `most` bytes of a file, from a line's beginning where it is longer.
pub(crate) fn tail(file: &File, most: u64) -> io::Result<Vec<u8>> {
    let len = file.metadata()?.len();
    let from = len.saturating_sub(most);
    let mut bytes = vec![0; usize::try_from(len - from).map_err(io::Error::other)?];
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], from + read as u64)? {
            0 => break,
            n => read += n,
        }
    }
    bytes.truncate(read);
    if from > 0 {
        let line = bytes.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
        bytes.drain(..line);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_log_that_no_vmm_makes_is_emptied() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let len_after = |len| {
            File::create(&path).unwrap().set_len(len).unwrap();
            bound_console(&path);
            std::fs::metadata(&path).unwrap().len()
        };
        assert_eq!(len_after(MOST_CONSOLE), MOST_CONSOLE);
        assert_eq!(len_after(MOST_CONSOLE + 1), 0);
        bound_console(&directory.path().join("none"));
    }

    #[test]
    fn a_long_log_keeps_its_end_and_its_writer_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        writer.write_all("first line\n".repeat(100_000).as_bytes()).unwrap();
        cut(&path);
        writer.write_all(b"last line\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.len() as u64 <= KEPT + 10 && text.starts_with("first") && text.ends_with("\nlast line\n")
        );
        cut(&path);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}
