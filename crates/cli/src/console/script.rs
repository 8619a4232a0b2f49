use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use plimsoll_text::without_controls_but;

/// Longest line that is kept: a guest may print without end and without a newline. What is longer
/// is cut into lines.
const MAX_LINE: usize = 64 << 10;
/// How long the rest of a line is waited for once its text was seen: a line leaves a serial port in
/// pieces, and a prompt ("login:") never ends its line.
const REST_TIME: Duration = Duration::from_millis(300);

/// Watches a console for a line.
pub(crate) struct Watch<'a> {
    expect: &'a [String],
    /// What was sent, where it holds what is expected: its echo is no answer.
    echo: Option<&'a str>,
    line: Vec<u8>,
    last: Option<String>,
    found: Option<String>,
}

/// How watching ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The line came.
    Line(String),
    /// It did not come in time; the last line that did.
    Timeout(Option<String>),
    /// The console ended before; the last line that came.
    Closed(Option<String>),
}

/// Types `text` and the enter key.
pub(crate) fn send(stream: &mut UnixStream, text: &str) -> Result<()> {
    stream.set_write_timeout(Some(Duration::from_secs(10))).context("attaching to the console")?;
    stream
        .write_all(format!("{text}\n").as_bytes())
        .context("typing into the console: its guest reads nothing, or has ended")
}

impl<'a> Watch<'a> {
    pub(crate) fn new(expect: &'a [String], sent: Option<&'a str>) -> Self {
        let echo = sent.filter(|sent| expect.iter().any(|e| sent.contains(e.as_str())));
        Self { expect, echo, line: Vec::new(), last: None, found: None }
    }

    /// Takes what the console printed, up to the end of the first line that matches.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.found.is_some() {
                return;
            }
            if byte == b'\n' || self.line.len() >= MAX_LINE {
                self.end_line();
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
    }

    fn end_line(&mut self) {
        let line = readable(&self.line);
        self.line.clear();
        if self.matches(&line) {
            self.found = Some(line);
        } else if !line.is_empty() {
            self.last = Some(line);
        }
    }

    fn matches(&mut self, line: &str) -> bool {
        if !self.expect.iter().any(|e| line.contains(e.as_str())) {
            return false;
        }
        match self.echo {
            Some(echo) if line.contains(echo) => {
                self.echo = None;
                false
            }
            _ => true,
        }
    }

    /// The line that has not ended yet, if it matches.
    fn partial(&self) -> Option<String> {
        let line = readable(&self.line);
        let echo = self.echo.is_some_and(|echo| line.contains(echo) || echo.contains(line.trim()));
        (!echo && self.expect.iter().any(|e| line.contains(e.as_str()))).then_some(line)
    }

    /// Reads the console until a line matches.
    ///
    /// # Errors
    /// The console cannot be read.
    pub(crate) fn wait(mut self, stream: &mut UnixStream, limit: Duration) -> Result<End> {
        let deadline = Instant::now() + limit;
        let mut buffer = [0; 4096];
        loop {
            if let Some(line) = self.found {
                return Ok(End::Line(line));
            }
            let partial = self.partial();
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = if partial.is_some() { left.min(REST_TIME) } else { left };
            if timeout.is_zero() {
                return Ok(partial.map_or(End::Timeout(self.last), End::Line));
            }
            stream.set_read_timeout(Some(timeout)).context("reading the console")?;
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(partial.map_or(End::Closed(self.last), End::Line)),
                Ok(n) => self.feed(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if let Some(line) = partial {
                        return Ok(End::Line(line));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(partial.map_or(End::Closed(self.last), End::Line));
                }
                Err(e) => return Err(e).context("reading the console"),
            }
        }
    }
}

/// A line as it may be shown: a guest's control characters could drive the operator's terminal.
fn readable(line: &[u8]) -> String {
    without_controls_but(&['\t'], &String::from_utf8_lossy(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn watch(expect: &str, sent: Option<&str>, printed: &[u8]) -> End {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(printed).unwrap();
        drop(theirs);
        Watch::new(&[expect.to_owned()], sent).wait(&mut ours, LONG).unwrap()
    }

    #[test]
    fn the_first_line_with_the_text_is_taken_whole() {
        let end = watch("ok", None, b"booting\r\ntoucher: ok 64MiB\r\nok again\r\n");
        assert_eq!(end, End::Line("toucher: ok 64MiB".into()));
    }

    #[test]
    fn a_prompt_without_a_newline_is_taken_too() {
        assert_eq!(watch("login:", None, b"hello\nvm login: "), End::Line("vm login: ".into()));
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"vm login: ").unwrap();
        let expect = ["login:".to_owned()];
        assert_eq!(Watch::new(&expect, None).wait(&mut ours, LONG).unwrap(), End::Line("vm login: ".into()));
    }

    #[test]
    fn the_echo_of_what_was_sent_is_no_answer() {
        let end = watch("ok", Some("echo ok"), b"# echo ok\r\nok\r\n");
        assert_eq!(end, End::Line("ok".into()));
        assert!(matches!(watch("ok", Some("echo ok"), b"# echo ok\r\n"), End::Closed(_)));
    }

    #[test]
    fn an_end_without_the_line_tells_the_last_one() {
        assert_eq!(watch("ok", None, b"panic\n\n"), End::Closed(Some("panic".into())));
        assert_eq!(watch("ok", None, b""), End::Closed(None));
        let (mut ours, _theirs) = UnixStream::pair().unwrap();
        let expect = ["ok".to_owned()];
        let end = Watch::new(&expect, None).wait(&mut ours, Duration::from_millis(1)).unwrap();
        assert_eq!(end, End::Timeout(None));
    }

    #[test]
    fn a_guest_cannot_drive_the_terminal_or_fill_memory() {
        assert_eq!(watch("ok", None, b"\x1b[2Jok\n"), End::Line("[2Jok".into()));
        let mut endless = vec![b'x'; 3 * MAX_LINE];
        endless.extend_from_slice(b"ok\n");
        let End::Line(line) = watch("ok", None, &endless[2 * MAX_LINE..]) else { panic!() };
        assert!(line.len() <= MAX_LINE + 2);
    }

    #[test]
    fn what_the_log_already_holds_counts_when_fed() {
        let (mut ours, _theirs) = UnixStream::pair().unwrap();
        let expect = ["login:".to_owned()];
        let mut watch = Watch::new(&expect, None);
        watch.feed(b"old\nvm login: root\nnew");
        assert_eq!(watch.wait(&mut ours, LONG).unwrap(), End::Line("vm login: root".into()));
    }
}
