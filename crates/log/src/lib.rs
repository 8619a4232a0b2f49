//! The log of the programs that run for long: lines on standard error, or entries of systemd's
//! journal where that is what standard error goes to.
//!
//! Logging never ends a VM or the daemon. A line that cannot be written, because the file system is
//! full or the pipe has no reader, is lost and counted. The next line that can be written is
//! preceded by one that says how many are missing. An entry that the journal does not take is lost.
//! This crate never panics and never returns an error to a caller that logs. Start with [`init`].

mod journal;

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, registry, reload};

/// The environment variable by which the daemon tells its VMMs what to log.
pub const FILTER_VARIABLE: &str = "PLIMSOLL_LOG";

/// What changes the filter of the log.
type Change = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// Set by [`init`].
static CHANGE: OnceLock<Change> = OnceLock::new();

/// Logs what `filter` lets pass from now on. Call it once.
pub fn init(filter: EnvFilter) {
    let (filter, handle) = reload::Layer::new(filter);
    // It fails only where the log is gone.
    let change = move |filter| handle.reload(filter).unwrap_or_default();
    CHANGE.set(Box::new(change)).ok(); // Once, as the log itself.
    let journal = journal::layer();
    let lines = journal.is_none().then(|| {
        fmt::layer()
            .with_writer(LossyWriter::new(io::stderr()))
            .with_ansi(io::stderr().is_terminal())
            // They would go to standard error as well, and panic if that cannot be written.
            .log_internal_errors(false)
    });
    registry().with(filter).with(journal).with(lines).init();
}

/// Logs what `filter` lets pass from now on, in place of what [`init`] was told. Before [`init`] it
/// does nothing.
pub fn change(filter: EnvFilter) {
    if let Some(change) = CHANGE.get() {
        change(filter);
    }
}

/// Writes `line` to standard error, or loses it.
pub fn say(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}

/// Writes whole lines to `inner`; counts those that cannot be written.
#[derive(Debug)]
struct LossyWriter<W> {
    state: Mutex<State<W>>,
}

#[derive(Debug)]
struct State<W> {
    inner: W,
    /// Lines that were lost since the last one that was written.
    lost: u64,
}

impl<W: Write> LossyWriter<W> {
    fn new(inner: W) -> Self {
        Self { state: Mutex::new(State { inner, lost: 0 }) }
    }

    fn write_line(&self, line: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { inner, lost } = &mut *state;
        // In one piece with the line: a note of its own could succeed while each line fails.
        let note = match *lost {
            0 => String::new(),
            // A part of the line before it may have been written.
            lost => format!("\nplimsoll: {lost} lines of the log were lost: it could not be written\n"),
        };
        let written = inner.write_all(&[note.as_bytes(), line].concat()).and_then(|()| inner.flush());
        *lost = if written.is_ok() { 0 } else { lost.saturating_add(1) };
    }
}

/// One event's way to the log: the subscriber writes each event in one piece.
struct Line<'a, W>(&'a LossyWriter<W>);

impl<W: Write> Write for Line<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a, W: Write + 'a> MakeWriter<'a> for LossyWriter<W> {
    type Writer = Line<'a, W>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system with some space left, which may grow.
    struct Disk {
        content: Vec<u8>,
        space: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.space - self.content.len());
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.content.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_told() {
        let log = LossyWriter::new(Disk { content: Vec::new(), space: 10 });
        for line in ["first\n", "second\n", "third\n"] {
            log.make_writer().write_all(line.as_bytes()).unwrap();
        }
        log.state.lock().unwrap().inner.space = 1000;
        for line in ["fourth\n", "fifth\n"] {
            log.make_writer().write_all(line.as_bytes()).unwrap();
        }
        let text = String::from_utf8(log.state.into_inner().unwrap().inner.content).unwrap();
        assert_eq!(
            text,
            "first\nseco\nplimsoll: 2 lines of the log were lost: it could not be written\nfourth\nfifth\n"
        );
    }
}
