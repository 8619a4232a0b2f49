//! A guest's console as it is written to a file: what was said, and when.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::clock::since_boot;

/// How often the file is looked at. More often would take processor time from the guest, which
/// shares the lab's processors with the measurement; both contenders' times are late by up to this.
const TICK: Duration = Duration::from_millis(2);

/// Characters of console that an error shows.
const TAIL: usize = 2000;

/// A console's output, read from the file that a VMM writes it to.
pub(super) struct Console {
    path: PathBuf,
    file: Option<File>,
    said: Vec<u8>,
}

impl Console {
    /// The console in the file at `path`, which may be made later.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None, said: Vec::new() }
    }

    /// Waits until `line` has been said and returns when it was seen. `check` is called all the
    /// while and ends the wait by its error.
    pub(super) fn wait(
        &mut self,
        line: &str,
        limit: Duration,
        check: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Duration> {
        let begin = since_boot();
        loop {
            self.read()?;
            let now = since_boot();
            if self.said.windows(line.len()).any(|part| part == line.as_bytes()) {
                return Ok(now);
            }
            check().with_context(|| self.failure(line))?;
            if now - begin > limit {
                bail!("{} in {} s", self.failure(line), limit.as_secs());
            }
            thread::sleep(TICK);
        }
    }

    fn read(&mut self) -> Result<()> {
        if self.file.is_none() {
            // The VMM makes it when it gets there.
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.read_to_end(&mut self.said).with_context(|| format!("reading {}", self.path.display()))?;
        Ok(())
    }

    fn failure(&self, line: &str) -> String {
        let tail = &self.said[self.said.len().saturating_sub(TAIL)..];
        format!("the guest did not say {line:?}; its last words were:\n{}\n", String::from_utf8_lossy(tail))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_line_that_comes_in_pieces_is_seen_once_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console");
        let mut console = Console::new(path.clone());
        let mut pieces = [&b"[    0.1] ini"[..], b"t: up", b" at last\n"].into_iter();
        let mut writer = None;
        let mut check = || {
            let writer = writer.get_or_insert_with(|| File::create(&path).unwrap());
            writer.write_all(pieces.next().context("it was written and not seen")?)?;
            Ok(())
        };
        let before = since_boot();
        assert!(console.wait("init: up", Duration::from_secs(60), &mut check).unwrap() >= before);
        assert!(console.wait("init: down", Duration::from_secs(60), &mut check).is_err());
    }
}
