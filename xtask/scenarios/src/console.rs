//! The console of a guest with a shell, as a person uses it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Words for the kernel of a guest with systemd: its login prompt on the console waits for nothing.
/// By default it waits 90 s for udev to find the serial port, and then there is none until the next
/// boot: in an emulator on a busy machine, udev may take longer.
pub(crate) const LOGIN: &str = "systemd.mask=serial-getty@ttyS0.service systemd.wants=console-getty.service";

const TICK: Duration = Duration::from_millis(100);

/// A console that is attached to.
pub(crate) struct Console {
    stream: UnixStream,
    pending: String,
}

impl Console {
    /// Attaches to the console at `path`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub(crate) fn attach(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).with_context(|| format!("attaching to {}", path.display()))?;
        stream.set_read_timeout(Some(TICK))?;
        Ok(Self { stream, pending: String::new() })
    }

    /// Types `line` and the enter key.
    ///
    /// # Errors
    /// The console is gone.
    pub(crate) fn type_line(&mut self, line: &str) -> Result<()> {
        self.stream.write_all(format!("{line}\n").as_bytes()).with_context(|| format!("typing {line:?}"))
    }

    /// Types the shell's `command`, and returns all that the console shows until it has ended: what
    /// was typed, and what the command prints.
    ///
    /// # Errors
    /// It does not end within `limit`, or the console is gone.
    pub(crate) fn ask(&mut self, command: &str, limit: Duration) -> Result<String> {
        // The text that is looked for differs from what is typed.
        self.type_line(&format!("{command}; echo end-of\"-\"answer"))?;
        self.expect("end-of-answer", limit)
    }

    /// Reads until `text` has come, and returns everything up to its end.
    ///
    /// # Errors
    /// It does not come within `limit`, or the console is gone.
    pub(crate) fn expect(&mut self, text: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(at) = self.pending.find(text) {
                return Ok(self.pending.drain(..at + text.len()).collect());
            }
            ensure!(Instant::now() < deadline, "{text:?} did not come within {} s", limit.as_secs());
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the console was closed while waiting for {text:?}"),
                Ok(count) => self.pending += &String::from_utf8_lossy(&buffer[..count]),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error).context("reading the console"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    #[test]
    fn an_answer_ends_where_the_command_does_and_not_where_it_was_typed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console");
        let listener = UnixListener::bind(&path).unwrap();
        let guest = thread::spawn(move || {
            let (mut guest, _) = listener.accept().unwrap();
            let mut typed = [0; 64];
            let count = guest.read(&mut typed).unwrap();
            guest.write_all(&typed[..count]).unwrap();
            guest.write_all(b"6.1.0\r\nend-of-answer\r\n# ").unwrap();
        });
        let mut console = Console::attach(&path).unwrap();
        let answer = console.ask("uname -r", Duration::from_secs(60)).unwrap();
        assert!(answer.starts_with("uname -r;") && answer.ends_with("6.1.0\r\nend-of-answer"), "{answer:?}");
        guest.join().unwrap();
        let error = console.expect("login:", Duration::from_secs(60)).unwrap_err();
        assert!(error.to_string().contains("was closed"), "{error:#}");
    }
}
