//! The daemon's API over its unix socket: one request a connection, so that a daemon killed in
//! between is noticed.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;

/// How long an answer may take. The daemon answers from memory; emulation on a loaded machine is
/// slow.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// The daemon at a socket.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    socket: PathBuf,
}

impl Api {
    /// The daemon that listens at `socket`, now or later.
    pub(crate) fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// What `GET path` answers.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let body = self.text(path)?;
        serde_json::from_str(&body).with_context(|| format!("reading the answer to GET {path}: {body}"))
    }

    /// What `GET path` answers, as text.
    pub(crate) fn text(&self, path: &str) -> Result<String> {
        self.ask("GET", path, "")?.success().with_context(|| format!("GET {path}"))
    }

    /// What the daemon answers to `METHOD path` with `body`.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> Result<Reply> {
        let ask = || -> Result<Vec<u8>> {
            let mut stream = UnixStream::connect(&self.socket)?;
            stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            let length = body.len();
            // HTTP/1.0: the answer ends with the connection and is not chunked.
            write!(
                stream,
                "{method} {path} HTTP/1.0\r\nHost: plimsoll\r\nConnection: close\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            )?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            Ok(answer)
        };
        let what = || format!("{method} {path} at {}", self.socket.display());
        let answer = ask().with_context(what)?;
        parse(&String::from_utf8_lossy(&answer)).with_context(what)
    }
}

/// An answer of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status, such as 200.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Reply {
    /// The body of an answer that is a success.
    ///
    /// # Errors
    /// An error: the status, and what the daemon says.
    pub fn success(self) -> Result<String> {
        ensure!((200..300).contains(&self.status), "status {}: {}", self.status, self.body.trim());
        Ok(self.body)
    }
}

fn parse(answer: &str) -> Result<Reply> {
    let (head, body) =
        answer.split_once("\r\n\r\n").with_context(|| format!("no HTTP answer: {answer:?}"))?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    let status = status.parse().with_context(|| format!("no status: {head:?}"))?;
    Ok(Reply { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_cut_out_and_errors_reported() {
        let body = |answer| parse(answer).and_then(Reply::success);
        assert_eq!(body("HTTP/1.0 200 OK\r\nA: b\r\n\r\n[]").unwrap(), "[]");
        assert_eq!(body("HTTP/1.0 204 No Content\r\n\r\n").unwrap(), "");
        let refused = parse("HTTP/1.0 404 Not Found\r\n\r\n{\"error\":\"x\"}").unwrap();
        assert_eq!(refused.status, 404);
        assert!(refused.success().unwrap_err().to_string().contains("404"));
        assert!(parse("HTTP/1.0 OK\r\n\r\n").is_err());
        assert!(parse("").is_err());
    }
}
