use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, send};
use rustix::process::{Signal, pidfd_send_signal};

use super::message::{Answer, HEAD, Head, MAX_ANSWER, MAX_PIECE, MAX_TEXT, Request, Which};

/// How long the reader may take for one boot, all requests together. Tables and configurations take
/// milliseconds, kernel and initrd as long as the disk; a disk that is slower than this is broken.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);

/// The VMM's end of the reader's socket. The reader is killed at the first answer that breaks a
/// rule, and where it is too slow.
pub(super) struct Link {
    socket: OwnedFd,
    /// The reader's process.
    child: OwnedFd,
    sequence: u32,
    /// What is left of [`BOOT_TIMEOUT`].
    time_left: Duration,
    dead: bool,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Told(String),
    #[error("the boot reader's process has ended (plimsoll logs --vmm may say why)")]
    Ended,
    #[error("the boot reader took more than {} s: it was killed", BOOT_TIMEOUT.as_secs())]
    Slow,
    #[error("the boot reader sent {0}: it was killed")]
    Wrong(&'static str),
    #[error("the boot reader's socket")]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for Trouble {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl From<Trouble> for io::Error {
    fn from(trouble: Trouble) -> Self {
        Self::other(trouble)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Link {
    pub(super) fn new(socket: OwnedFd, child: OwnedFd) -> Self {
        Self { socket, child, sequence: 0, time_left: BOOT_TIMEOUT, dead: false }
    }

    pub(super) fn find(&mut self) -> io::Result<Answer> {
        self.time_left = BOOT_TIMEOUT;
        let mut buffer = vec![0; MAX_ANSWER];
        let length = self.ask(Request::Find, &mut buffer)?;
        let answer = Answer::decode(&buffer[..length]).filter(|answer| answer.kernel > 0);
        answer.ok_or_else(|| self.wrong("no valid account of what it found").into())
    }

    /// Fills `buffer`, which may be longer than one answer.
    pub(super) fn read(&mut self, which: Which, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut offset = offset;
        for piece in buffer.chunks_mut(MAX_PIECE) {
            let length = u32::try_from(piece.len()).map_err(io::Error::other)?;
            if self.ask(Request::Read { which, offset, length }, piece)? != piece.len() {
                return Err(self.wrong("less than was asked for").into());
            }
            offset += u64::from(length);
        }
        Ok(())
    }

    pub(super) fn forget(&mut self) -> io::Result<()> {
        Ok(self.ask(Request::Forget, &mut []).map(drop)?)
    }

    /// Sends `request` and receives the answer into the beginning of `buffer`. Returns its length.
    fn ask(&mut self, request: Request, buffer: &mut [u8]) -> Result<usize, Trouble> {
        if self.dead {
            return Err(Trouble::Ended);
        }
        self.sequence = self.sequence.wrapping_add(1);
        let request = request.encode(self.sequence);
        // One request is on its way at a time, so the socket has room for it.
        match send(&self.socket, &request, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) if sent == request.len() => {}
            Ok(_) | Err(rustix::io::Errno::AGAIN) => return Err(self.wrong("nothing, and does not read")),
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => return Err(self.ended()),
            Err(errno) => return Err(errno.into()),
        }
        let mut head = [0; HEAD];
        self.receive(&mut head)?;
        let Head { sequence, failed, length } = Head::decode(head);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let most = if failed { MAX_TEXT } else { buffer.len() };
        if sequence != self.sequence || length > most {
            return Err(self.wrong("an answer that was not asked for"));
        }
        if failed {
            let mut text = vec![0; length];
            self.receive(&mut text)?;
            return Err(Trouble::Told(String::from_utf8_lossy(&text).into_owned()));
        }
        self.receive(&mut buffer[..length])?;
        Ok(length)
    }

    fn receive(&mut self, mut buffer: &mut [u8]) -> Result<(), Trouble> {
        while !buffer.is_empty() {
            self.wait()?;
            match rustix::io::read(&self.socket, &mut *buffer) {
                Ok(0) | Err(rustix::io::Errno::CONNRESET) => return Err(self.ended()),
                Ok(count) => buffer = &mut buffer[count..],
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Waits for the reader to say something.
    fn wait(&mut self) -> Result<(), Trouble> {
        let begin = Instant::now();
        let timeout = Timespec {
            tv_sec: i64::try_from(self.time_left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: self.time_left.subsec_nanos().into(),
        };
        let ready = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout));
        self.time_left = self.time_left.saturating_sub(begin.elapsed());
        match ready {
            Ok(0) => {
                self.kill();
                Err(Trouble::Slow)
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    #[cfg(test)]
    pub(super) fn child(&self) -> &OwnedFd {
        &self.child
    }

    #[cfg(test)]
    pub(super) fn set_time_left(&mut self, time_left: Duration) {
        self.time_left = time_left;
    }

    fn wrong(&mut self, what: &'static str) -> Trouble {
        self.kill();
        Trouble::Wrong(what)
    }

    fn ended(&mut self) -> Trouble {
        self.kill();
        Trouble::Ended
    }

    fn kill(&mut self) {
        self.dead = true;
        // It fails only if the process has ended.
        pidfd_send_signal(&self.child, Signal::KILL).ok();
    }
}
