//! The daemon's API over its unix socket: one request a connection, so that a daemon killed in
//! between is noticed.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

/// How long an answer may take. The daemon answers from memory; emulation on a loaded machine is
/// slow.
const PATIENCE: Duration = Duration::from_secs(20);

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
        let ask = || -> Result<Vec<u8>> {
            let mut stream = UnixStream::connect(&self.socket)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            // HTTP/1.0: the answer ends with the connection and is not chunked.
            write!(stream, "GET {path} HTTP/1.0\r\nHost: plimsoll\r\nConnection: close\r\n\r\n")?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().with_context(|| format!("GET {path} at {}", self.socket.display()))?;
        parse(&String::from_utf8_lossy(&answer)).with_context(|| format!("GET {path}"))
    }
}

/// The body of an answer with status 200.
fn parse(answer: &str) -> Result<String> {
    let (head, body) =
        answer.split_once("\r\n\r\n").with_context(|| format!("no HTTP answer: {answer:?}"))?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        bail!("status {status}: {}", body.trim());
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_cut_out_and_errors_reported() {
        assert_eq!(parse("HTTP/1.0 200 OK\r\nA: b\r\n\r\n[]").unwrap(), "[]");
        assert!(
            parse("HTTP/1.0 404 Not Found\r\n\r\n{\"error\":\"x\"}").unwrap_err().to_string().contains("404")
        );
        assert!(parse("").is_err());
    }
}
