//! The conversation with `toucher` in a guest, over the guest's console.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long a guest may take from its start to `toucher`. Ten seconds are usual in the lab.
const BOOT_DEADLINE: Duration = Duration::from_secs(180);

/// How often `toucher` is greeted until it answers: what is typed before the guest's console is up
/// is lost.
const GREETING: Duration = Duration::from_millis(1000);

/// How long a read waits before deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);

/// An attached console with `toucher` behind it.
pub struct Toucher {
    name: String,
    console: UnixStream,
    pending: Vec<u8>,
}

/// A line of facts from `toucher`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer(String);

impl Answer {
    /// The number after `key=`.
    pub fn number(&self, key: &str) -> Result<u64> {
        let value = self.0.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let value = value.with_context(|| format!("{key} is missing in {:?}", self.0))?;
        value.parse().with_context(|| format!("{key} in {:?}", self.0))
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl Toucher {
    /// Attaches to the console at `socket` of the VM `name` and waits until `toucher` answers.
    pub fn attach(name: &str, socket: &Path) -> Result<Self> {
        let console = UnixStream::connect(socket)
            .with_context(|| format!("attaching to the console of {name} at {}", socket.display()))?;
        console.set_read_timeout(Some(TICK))?;
        let mut toucher = Self { name: name.to_owned(), console, pending: Vec::new() };
        toucher.greet(BOOT_DEADLINE)?;
        Ok(toucher)
    }

    /// Waits until `toucher` answers, as after a reboot of the guest.
    pub fn greet(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            self.send("meminfo")?;
            if self.answer("meminfo", Instant::now() + GREETING)?.is_some() {
                // Answers come in order: after this one no answer to an earlier greeting is under
                // way.
                self.ask("verify", limit)?;
                return Ok(());
            }
        }
        bail!("toucher in {} did not answer within {} s", self.name, limit.as_secs())
    }

    /// Sends `command` without waiting for its answer.
    pub fn send(&mut self, command: &str) -> Result<()> {
        let line = format!("{command}\n");
        self.console
            .write_all(line.as_bytes())
            .with_context(|| format!("typing {command:?} to {}", self.name))
    }

    /// Waits for the answer to `command`, which was sent.
    pub fn receive(&mut self, command: &str, limit: Duration) -> Result<Answer> {
        let verb = command.split_whitespace().next().unwrap_or_default();
        let answer = self.answer(verb, Instant::now() + limit)?;
        answer
            .with_context(|| format!("{} did not answer {command:?} within {} s", self.name, limit.as_secs()))
    }

    /// Sends `command` and waits for its answer.
    pub fn ask(&mut self, command: &str, limit: Duration) -> Result<Answer> {
        self.send(command)?;
        self.receive(command, limit)
    }

    /// Looks for the answer to `verb`; `None` when it has not come by `deadline`.
    pub fn answer(&mut self, verb: &str, deadline: Instant) -> Result<Option<Answer>> {
        loop {
            while let Some(line) = self.line() {
                if let Some(result) = read_answer(&line, verb) {
                    return result.map(Some).map_err(|error| anyhow::anyhow!("{}: {error}", self.name));
                }
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            let mut buffer = [0; 4096];
            match self.console.read(&mut buffer) {
                Ok(0) => bail!("the console of {} was closed", self.name),
                Ok(count) => self.pending.extend(&buffer[..count]),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("reading the console of {}", self.name));
                }
            }
        }
    }

    fn line(&mut self) -> Option<String> {
        let end = self.pending.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.pending.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line).trim().to_owned())
    }

    /// Fails unless `bytes` are all right: `verify`, with the number of bytes that were looked at
    /// and of pages that were not what was written.
    pub fn verify(&mut self, limit: Duration) -> Result<(u64, u64)> {
        let answer = self.ask("verify", limit)?;
        Ok((answer.number("bytes")?, answer.number("mismatched")?))
    }

    /// Verifies and fails where anything is lost; returns the bytes that are right.
    pub fn verify_all(&mut self, limit: Duration) -> Result<u64> {
        let (bytes, mismatched) = self.verify(limit)?;
        ensure!(mismatched == 0, "{}: {mismatched} pages are not what the guest wrote", self.name);
        Ok(bytes)
    }
}

/// What `line` answers to `verb`, if it is an answer to that at all.
fn read_answer(line: &str, verb: &str) -> Option<Result<Answer, String>> {
    // The kernel may have written to the same line before.
    let text = &line[line.find("toucher: ")? + "toucher: ".len()..];
    let (kind, text) = text.split_once(' ')?;
    if text.split_whitespace().next() != Some(verb) {
        return None;
    }
    match kind {
        "ok" => Some(Ok(Answer(text.to_owned()))),
        "error" => Some(Err(text.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_other_lines() {
        let answer = read_answer("[ 1.0] x toucher: ok verify bytes=4096 pages=1 mismatched=0", "verify");
        let answer = answer.unwrap().unwrap();
        assert_eq!(answer.number("pages").unwrap(), 1);
        assert!(answer.number("page").is_err());
        assert!(read_answer("toucher: ok meminfo total=1", "verify").is_none());
        assert!(read_answer("toucher: note verify started", "verify").is_none());
        assert_eq!(
            read_answer("toucher: error touch seed 1 is in use", "touch").unwrap().unwrap_err(),
            "touch seed 1 is in use"
        );
    }
}
