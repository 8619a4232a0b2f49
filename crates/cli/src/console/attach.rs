use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};

use crate::output::Output;

/// Ctrl-]: what telnet and virsh use, and what few programs in guests want.
const ESCAPE: u8 = 0x1d;
/// Input that may wait for a guest that reads slowly. A person never types that much; a pipe is not
/// read further until the guest has read some.
const MAX_PENDING: usize = 64 << 10;

/// How an attachment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The person left.
    Left,
    /// The console has gone: the VM ended.
    Closed,
}

/// The terminal without line editing, echo and signals, until dropped.
struct Raw;

impl Raw {
    fn new() -> Result<Self> {
        crossterm::terminal::enable_raw_mode().context("setting the terminal to raw mode")?;
        Ok(Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone needs no restoring.
        crossterm::terminal::disable_raw_mode().ok();
    }
}

/// Whether a person types the input.
pub(crate) fn at_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Copies the input to the console and the console to the output. At a terminal Ctrl-] leaves. The
/// end of an input that is not a terminal ends only the sending.
pub(crate) fn attach(stream: UnixStream, output: &Output) -> Result<End> {
    let raw = at_terminal().then(Raw::new).transpose()?;
    stream.set_nonblocking(true).context("attaching to the console")?;
    let end = copy(stream, output, raw.is_some());
    drop(raw);
    end
}

fn copy(mut stream: UnixStream, output: &Output, terminal: bool) -> Result<End> {
    let stdin = io::stdin();
    let mut open = true;
    let mut pending = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        // A person's keys are always read, so that Ctrl-] works however stuck the guest is.
        let reads = open && (terminal || pending.len() < MAX_PENDING);
        let (input, console) = ready(reads.then_some(&stdin), !pending.is_empty(), &stream)?;
        if console.intersects(PollFlags::OUT) {
            match send(&mut stream, &mut pending) {
                Ok(()) => {}
                Err(e) if gone(&e) => return Ok(End::Closed),
                Err(e) => return Err(e).context("writing to the console"),
            }
        }
        if console.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(End::Closed),
                Ok(n) => output.bytes(&buffer[..n])?,
                Err(e) if retry(&e) => {}
                Err(e) if gone(&e) => return Ok(End::Closed),
                Err(e) => return Err(e).context("reading the console"),
            }
        }
        if input {
            // Unbuffered: what stays in a buffer of the standard library would not wake poll.
            let n = rustix::io::retry_on_intr(|| rustix::io::read(&stdin, &mut buffer));
            let typed = &buffer[..n.context("reading the input")?];
            open = !typed.is_empty();
            let escape = typed.iter().position(|&b| b == ESCAPE).filter(|_| terminal);
            if escape.is_some() || (terminal && !open) {
                return Ok(End::Left);
            }
            let room = MAX_PENDING.saturating_sub(pending.len()).max(if terminal { 0 } else { typed.len() });
            pending.extend_from_slice(&typed[..typed.len().min(room)]);
        }
    }
}

/// Waits until there is input (where wanted) or something to do on the console.
fn ready(input: Option<&io::Stdin>, output: bool, stream: &UnixStream) -> Result<(bool, PollFlags)> {
    let wanted = if output { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let mut fds = vec![PollFd::new(stream, wanted)];
    fds.extend(input.map(|stdin| PollFd::new(stdin, PollFlags::IN)));
    rustix::io::retry_on_intr(|| poll(&mut fds, None)).context("waiting for the console")?;
    Ok((fds.get(1).is_some_and(|fd| !fd.revents().is_empty()), fds[0].revents()))
}

/// Sends what the console takes now.
fn send(stream: &mut UnixStream, pending: &mut Vec<u8>) -> io::Result<()> {
    match stream.write(pending) {
        Ok(n) => {
            pending.drain(..n);
            Ok(())
        }
        Err(e) if retry(&e) => Ok(()),
        Err(e) => Err(e),
    }
}

fn retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}
