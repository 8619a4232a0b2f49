//! The talk between `xtask` outside and its agent inside the lab, over one virtio-serial port.
//!
//! A frame is a kind (one byte), a length (four bytes, little-endian) and that many bytes of
//! payload. The outside asks with [`Kind::Run`]; the inside answers with any number of
//! [`Kind::Out`] and [`Kind::Err`], and one [`Kind::Exit`].

use std::io::{self, Read, Write};
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To the lab: a [`Request`], as JSON.
    Run = 1,
    /// To the lab: kill the command that runs, and all of its process group. No payload.
    Kill = 2,
    /// To the lab: nothing, but that it is interrupted. No payload.
    Beat = 3,
    /// From the lab: it is up and takes commands. No payload.
    Ready = 16,
    /// From the lab: standard output of the command.
    Out = 17,
    /// From the lab: standard error of the command.
    Err = 18,
    /// From the lab: the command has ended; its exit status in decimal, 128 + the signal's number
    /// where one ended it.
    Exit = 19,
}

impl Kind {
    fn from_byte(byte: u8) -> io::Result<Self> {
        let all = [Self::Run, Self::Kill, Self::Beat, Self::Ready, Self::Out, Self::Err, Self::Exit];
        let found = all.into_iter().find(|kind| *kind as u8 == byte);
        found.ok_or_else(|| io::Error::other(format!("frame of unknown kind {byte} on the lab's port")))
    }
}

/// A command to run in the lab.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Request {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables on top of the lab's own.
    pub env: Vec<(String, String)>,
}

/// Output is cut into frames of at most this many bytes: more would only delay the screen.
pub(crate) const MAX_PAYLOAD: usize = 64 << 10;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub kind: Kind,
    /// The bytes.
    pub(crate) payload: Vec<u8>,
}

/// Writes a frame of at most [`MAX_PAYLOAD`] bytes, in one piece.
pub fn send(mut to: impl Write, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(5 + payload.len());
    bytes.push(kind as u8);
    bytes.extend(len.to_le_bytes());
    bytes.extend(payload);
    to.write_all(&bytes)?;
    to.flush()
}

/// Cuts a stream into frames. Keeps what came of an unfinished frame, so that a read which times
/// out loses nothing.
pub struct Frames<R> {
    from: R,
    pending: Vec<u8>,
}

impl<R: Read> Frames<R> {
    /// Frames from `from`.
    pub fn new(from: R) -> Self {
        Self { from, pending: Vec::new() }
    }

    /// The stream itself, to set its timeouts.
    pub fn stream(&self) -> &R {
        &self.from
    }

    /// The next frame; `None` at the end of the stream, or when `deadline` passes (which is looked
    /// at after every read, so the stream needs a read timeout of its own).
    pub fn next(&mut self, deadline: Option<Instant>) -> io::Result<Next> {
        loop {
            if let Some(frame) = self.cut()? {
                return Ok(Next::Frame(frame));
            }
            let mut buffer = vec![0; MAX_PAYLOAD];
            match self.from.read(&mut buffer) {
                Ok(0) => return Ok(Next::End),
                Ok(count) => self.pending.extend(&buffer[..count]),
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(Next::Late);
            }
        }
    }

    fn cut(&mut self) -> io::Result<Option<Frame>> {
        let Some((head, rest)) = self.pending.split_first_chunk::<5>() else { return Ok(None) };
        let kind = Kind::from_byte(head[0])?;
        let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if len > MAX_PAYLOAD {
            return Err(io::Error::other(format!("frame of {len} bytes on the lab's port")));
        }
        if rest.len() < len {
            return Ok(None);
        }
        let payload = rest[..len].to_vec();
        self.pending.drain(..5 + len);
        Ok(Some(Frame { kind, payload }))
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// What [`Frames::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A frame.
    Frame(Frame),
    /// The other side is gone.
    End,
    /// The deadline passed first.
    Late,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time, and a timeout before each.
    struct Trickle(Vec<u8>, bool);

    impl Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            if self.0.is_empty() {
                return Ok(0);
            }
            buffer[0] = self.0.remove(0);
            Ok(1)
        }
    }

    #[test]
    fn frames_survive_any_fragmentation() {
        let mut bytes = Vec::new();
        send(&mut bytes, Kind::Out, b"hello").unwrap();
        send(&mut bytes, Kind::Exit, b"0").unwrap();
        let mut frames = Frames::new(Trickle(bytes, false));
        let next = frames.next(None).unwrap();
        assert_eq!(next, Next::Frame(Frame { kind: Kind::Out, payload: b"hello".to_vec() }));
        assert_eq!(
            frames.next(None).unwrap(),
            Next::Frame(Frame { kind: Kind::Exit, payload: b"0".to_vec() })
        );
        assert_eq!(frames.next(None).unwrap(), Next::End);
    }

    #[test]
    fn garbage_is_an_error_and_a_passed_deadline_is_seen() {
        assert!(Frames::new(&b"\xff\0\0\0\0"[..]).next(None).is_err());
        assert!(Frames::new(&b"\x11\xff\xff\xff\xff"[..]).next(None).is_err());
        let mut frames = Frames::new(Trickle(b"\x11\0\0\0\0".to_vec(), false));
        assert_eq!(frames.next(Some(Instant::now())).unwrap(), Next::Late);
        assert!(matches!(frames.next(None).unwrap(), Next::Frame(_)));
    }
}
