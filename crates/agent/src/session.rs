//! One connection: it begins with both versions and a command, and ends with that command.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use plimsoll_protocol::agent::{
    AGENT_VERSION, Execute, FrameError, Frames, FromAgent, MAX_DATA, OutputStream, ToAgent, encode,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::command::{Piece, Running, read};

/// Bytes that may wait for the client, and for the command: beyond it the other side is not read.
const MOST_WAITING: usize = 4 * MAX_DATA;
/// Looks for what a command has written after it has ended: its pipes hold 64 KiB each, and a look
/// takes up to [`MAX_DATA`] of both.
const MOST_DRAINS: u32 = 64;
/// How long the client may take.
#[derive(Clone, Copy, Debug)]
struct Timeouts {
    /// To say what to run.
    begin: Duration,
    /// To close the connection, once all was sent.
    close: Duration,
}

/// More than a host that is short of processors takes; less, and a client that never says anything
/// holds one of few places for long.
const TIMEOUTS: Timeouts = Timeouts { begin: Duration::from_secs(10), close: Duration::from_secs(10) };

/// Why a session ended before its command.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The client has left.
    Left,
    /// The client broke the protocol: how.
    Protocol(String),
    /// The client took too long.
    Late,
    Io(io::Error),
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Left => f.write_str("the client has left: its command is killed"),
            Self::Protocol(how) => write!(f, "the client broke the protocol: {how}"),
            Self::Late => f.write_str("the client took too long"),
            Self::Io(error) => write!(f, "the connection: {error}"),
        }
    }
}

impl From<FrameError> for Broken {
    fn from(error: FrameError) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl From<Errno> for Broken {
    fn from(error: Errno) -> Self {
        match error {
            Errno::PIPE | Errno::CONNRESET => Self::Left,
            error => Self::Io(error.into()),
        }
    }
}

/// Serves a connection, a non-blocking stream socket, to its end.
///
/// # Errors
/// The client left or broke the protocol. No command of it runs any more.
pub(crate) fn serve(socket: OwnedFd) -> Result<(), Broken> {
    Client::new(socket, TIMEOUTS).serve(Running::start)
}

/// Serves a connection as [`serve`] does, but runs no command: the client is told `why`.
///
/// # Errors
/// The client left or broke the protocol.
pub(crate) fn refuse(socket: OwnedFd, why: &str) -> Result<(), Broken> {
    Client::new(socket, TIMEOUTS).serve(|_| Err(why.to_owned()))
}

struct Client {
    socket: OwnedFd,
    timeouts: Timeouts,
    frames: Frames<ToAgent>,
    outgoing: Vec<u8>,
}

impl Client {
    fn new(socket: OwnedFd, timeouts: Timeouts) -> Self {
        Self { socket, timeouts, frames: Frames::default(), outgoing: Vec::new() }
    }

    /// Serves it, with `start` to start its command or to say why not.
    fn serve(mut self, start: impl FnOnce(&Execute) -> Result<Running, String>) -> Result<(), Broken> {
        self.say(&FromAgent::Hello(AGENT_VERSION))?;
        let deadline = Instant::now() + self.timeouts.begin;
        match self.hear(deadline)? {
            ToAgent::Hello(AGENT_VERSION) => {}
            ToAgent::Hello(version) => {
                let why = format!(
                    "the agent speaks version {AGENT_VERSION} of the protocol, and plimsoll {version}"
                );
                return self.last(&FromAgent::Failed(why));
            }
            other => return Err(Broken::Protocol(format!("it began with {other:?}"))),
        }
        let execute = match self.hear(deadline)? {
            ToAgent::Execute(execute) => execute,
            other => return Err(Broken::Protocol(format!("it said {other:?} before a command"))),
        };
        match start(&execute) {
            Ok(mut running) => {
                let end = self.attend(&mut running)?;
                self.last(&end)
            }
            Err(why) => self.last(&FromAgent::Failed(why)),
        }
    }

    /// Queues a message and sends what the socket takes.
    fn say(&mut self, message: &FromAgent) -> Result<(), Broken> {
        self.outgoing.extend(encode(message)?);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Broken> {
        while !self.outgoing.is_empty() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::io::retry_on_intr(|| rustix::net::send(&self.socket, &self.outgoing, flags)) {
                Ok(sent) => drop(self.outgoing.drain(..sent)),
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what has come. Returns false if nothing had.
    fn read(&mut self) -> Result<bool, Broken> {
        let mut bytes = [0; MAX_DATA];
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.socket, &mut bytes[..], RecvFlags::DONTWAIT).map(|(count, _)| count)
        });
        match received {
            Ok(0) => Err(Broken::Left),
            Ok(count) => {
                self.frames.add(&bytes[..count]);
                Ok(true)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the next message.
    fn hear(&mut self, deadline: Instant) -> Result<ToAgent, Broken> {
        loop {
            if let Some(message) = self.frames.take()? {
                return Ok(message);
            }
            if !self.read()? {
                self.wait(PollFlags::IN, Some(deadline))?;
                self.flush()?;
            }
        }
    }

    /// Sends the last message, and all before it.
    fn last(&mut self, message: &FromAgent) -> Result<(), Broken> {
        self.say(message)?;
        // For as long as it is there: a pager may stop reading for hours, and a VM be paused.
        while !self.outgoing.is_empty() {
            self.wait(PollFlags::empty(), None)?;
            self.flush()?;
        }
        let deadline = Instant::now() + self.timeouts.close;
        // It closes the connection once it has read all; closing first might lose the end of it.
        loop {
            match self.read() {
                // Input that the command has not waited for.
                Ok(true) => self.frames = Frames::default(),
                Ok(false) => self.wait(PollFlags::IN, Some(deadline))?,
                Err(Broken::Left) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for the socket, also until it takes what is queued. `None`: for as long as the client
    /// is there.
    fn wait(&self, flags: PollFlags, deadline: Option<Instant>) -> Result<(), Broken> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Broken::Late);
        }
        let mut wanted = flags;
        wanted.set(PollFlags::OUT, !self.outgoing.is_empty());
        let left = left.map(Timespec::try_from).transpose().map_err(|_| Broken::Late)?;
        let mut socket = [PollFd::new(&self.socket, wanted)];
        match poll(&mut socket, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // What it has sent before is of interest only where it is waited for.
        if flags.is_empty() && socket[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
            return Err(Broken::Left);
        }
        Ok(())
    }

    /// Passes on between the client and `running` until that ends. Returns the last message.
    fn attend(&mut self, running: &mut Running) -> Result<FromAgent, Broken> {
        let mut drains = MOST_DRAINS;
        loop {
            // Before each wait, also the first: what has come already wakes nobody.
            while let Some(message) = self.frames.take()? {
                match message {
                    ToAgent::Input(bytes) if bytes.len() <= MAX_DATA => running.input.take(&bytes),
                    ToAgent::InputEnd => running.input.end(),
                    other => return Err(Broken::Protocol(format!("it said {other:?} to a command"))),
                }
            }
            let ended = self.watch(running)?;
            self.flush()?;
            running.input.flush();
            if running.input.waiting() < MOST_WAITING {
                self.read()?;
            }
            let wrote = self.pass_on(running)?;
            // What it wrote before it ended is in the pipes. What others write that it has left
            // behind is not waited for.
            if ended && self.outgoing.len() < MOST_WAITING {
                drains = drains.saturating_sub(1);
                if (!wrote || drains == 0)
                    && let Some(end) = running.end()
                {
                    return Ok(end.map_or_else(FromAgent::Failed, FromAgent::Ended));
                }
            }
        }
    }

    /// Waits until there is something to do. Returns whether the command has ended.
    fn watch(&self, running: &Running) -> Result<bool, Broken> {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, running.input.waiting() < MOST_WAITING);
        wanted.set(PollFlags::OUT, !self.outgoing.is_empty());
        let mut fds = vec![PollFd::new(&self.socket, wanted), PollFd::new(&running.ended, PollFlags::IN)];
        fds.extend(running.input.source().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::OUT)));
        if self.outgoing.len() < MOST_WAITING {
            let outputs = [&running.out, &running.error].into_iter().flatten();
            fds.extend(outputs.map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)));
        } else {
            // Its end is of no interest before there is room for what it wrote.
            fds.swap_remove(1);
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // A client that is gone is noticed although its messages are not read now.
        if fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) && !wanted.contains(PollFlags::IN) {
            return Err(Broken::Left);
        }
        let mut now = [PollFd::new(&running.ended, PollFlags::IN)];
        Ok(poll(&mut now, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0))
    }

    /// Passes on what the command has written, as far as there is room. Returns whether there was
    /// something.
    fn pass_on(&mut self, running: &mut Running) -> Result<bool, Broken> {
        let mut some = false;
        let outputs = [(OutputStream::Out, &mut running.out), (OutputStream::Error, &mut running.error)];
        for (stream, output) in outputs {
            let Some(pipe) = output.as_ref().filter(|_| self.outgoing.len() < MOST_WAITING) else { continue };
            match read(pipe) {
                Piece::Bytes(bytes) => {
                    some = true;
                    self.say(&FromAgent::Output(stream, bytes))?;
                }
                Piece::Nothing => {}
                Piece::End => *output = None,
            }
        }
        Ok(some)
    }
}

#[cfg(test)]
mod tests;
