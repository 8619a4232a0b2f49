//! The guest's console: output goes to a bounded log file and to all attached clients, and what
//! clients type goes to the guest.
//!
//! One thread does all of it and waits for no client: output that does not fit is counted and
//! dropped ([`output::Output`]), a client that does not read is dropped ([`client::Client`]), what
//! is typed waits in a bounded queue until the guest takes it, and clients are not read while that
//! queue is full. A client that is one too many is told so, and hung up.

mod client;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
mod listener;
mod log;
mod output;
mod serial;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use client::{Client, Gone};
use listener::Listener;
pub(crate) use log::{ConsoleLog, MAX_LOG};
pub(crate) use output::Output;
use plimsoll_sys::Event;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::SendFlags;
pub(crate) use serial::SerialPort;

/// Most clients at once: enough for every operator on duty, few enough that their queues stay below
/// 2 MiB.
const MAX_CLIENTS: usize = 4;
/// Typed bytes that wait for the guest: a line of the longest length that a Linux terminal takes.
const MAX_TYPED: usize = 4096;

/// Takes what is typed: a serial port or a model guest.
pub(crate) trait Keyboard: Send + Sync {
    /// Takes the first of `bytes` for which there is room, and returns how many. After it has taken
    /// fewer than all, it signals the event that it was made with once there is room again.
    fn offer(&self, bytes: &[u8]) -> usize;
}

/// What the console is connected to.
pub(crate) struct Ends {
    /// What the guest writes.
    pub(crate) output: Arc<Output>,
    /// The log file; `None`: there is no log.
    pub(crate) log: Option<ConsoleLog>,
    /// Where clients connect; `None`: none can.
    pub(crate) listener: Option<OwnedFd>,
    /// Takes what clients type.
    pub(crate) keyboard: Arc<dyn Keyboard>,
    /// Signalled by the keyboard when it has room again.
    pub(crate) room: Event,
}

/// The running console thread.
#[derive(Debug)]
pub(crate) struct Console {
    stop: Arc<Stop>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
struct Stop {
    asked: AtomicBool,
    event: Event,
}

impl Console {
    /// Starts the thread.
    ///
    /// # Errors
    /// The listener cannot be made non-blocking, or no thread or descriptor is left.
    pub(crate) fn start(mut ends: Ends) -> io::Result<Self> {
        let listener = Listener::new(ends.listener.take())?;
        let stop = Arc::new(Stop { asked: AtomicBool::new(false), event: Event::new()? });
        let (clients, typed) = (Vec::new(), VecDeque::new());
        let mut service = Service { ends, listener, clients, typed, stop: Arc::clone(&stop) };
        let thread = std::thread::Builder::new().name("console".to_owned()).spawn(move || service.run())?;
        Ok(Self { stop, thread })
    }

    /// Writes what the guest has said so far to the log and to those clients that have room, and
    /// ends.
    pub(crate) fn finish(self) {
        self.stop.asked.store(true, Ordering::Release);
        self.stop.event.signal();
        if self.thread.join().is_err() {
            tracing::error!("the console thread panicked");
        }
    }
}

struct Service {
    ends: Ends,
    listener: Listener,
    clients: Vec<Client>,
    typed: VecDeque<u8>,
    stop: Arc<Stop>,
}

/// What poll(2) said, taken out of its borrows.
struct Ready {
    listener: bool,
    clients: Vec<PollFlags>,
}

impl Service {
    fn run(&mut self) {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(%error, "the console cannot wait for its descriptors: it ends");
                    return;
                }
            };
            // Asked before the output is taken, so that nothing said before the end is left behind.
            let stop = self.stop.asked.load(Ordering::Acquire);
            // Accept first: clients that connected before the guest wrote get that output.
            if ready.listener {
                self.accept();
            }
            self.pass_output();
            if stop {
                return;
            }
            self.serve_clients(&ready.clients);
            self.pass_typed();
        }
    }

    fn wait(&self) -> io::Result<Ready> {
        let mut fds = vec![
            PollFd::new(self.ends.output.ready(), PollFlags::IN),
            PollFd::new(&self.ends.room, PollFlags::IN),
            PollFd::new(&self.stop.event, PollFlags::IN),
        ];
        let typing = if self.typed.len() < MAX_TYPED { PollFlags::IN } else { PollFlags::empty() };
        for client in &self.clients {
            let flags = if client.is_behind() { typing | PollFlags::OUT } else { typing };
            fds.push(PollFd::new(client, flags));
        }
        let now = Instant::now();
        if let Some(listener) = self.listener.source(now) {
            fds.push(PollFd::from_borrowed_fd(listener, PollFlags::IN));
        }
        let closed = self.listener.closed_for(now).and_then(|closed| Timespec::try_from(closed).ok());
        match rustix::event::poll(&mut fds, closed.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags: Vec<PollFlags> = fds.iter().skip(3).map(PollFd::revents).collect();
        let (clients, rest) = flags.split_at(self.clients.len());
        Ok(Ready { listener: rest.iter().any(|f| !f.is_empty()), clients: clients.to_vec() })
    }

    fn pass_output(&mut self) {
        let bytes = self.ends.output.take();
        if bytes.is_empty() {
            return;
        }
        if let Some(log) = &mut self.ends.log {
            log.append(&bytes);
        }
        self.clients.retain_mut(|client| stays(client.send(&bytes)));
    }

    fn serve_clients(&mut self, ready: &[PollFlags]) {
        let mut ready = ready.iter();
        let typed = &mut self.typed;
        self.clients.retain_mut(|client| {
            // Sending may have dropped clients, and then the flags are off by some: reading never
            // blocks, and the next round sees what this one missed.
            let flags = ready.next().copied().unwrap_or(PollFlags::empty());
            let mut alive = stays(client.flush());
            if alive && !(flags - PollFlags::OUT).is_empty() {
                let mut buffer = [0; MAX_TYPED];
                let room = MAX_TYPED - typed.len().min(MAX_TYPED);
                match client.receive(&mut buffer[..room]) {
                    // Without room no bytes were asked for, so zero bytes do not mean the end.
                    Err(Gone::Closed) if room == 0 => {
                        alive = !flags.intersects(PollFlags::HUP | PollFlags::ERR)
                    }
                    Ok(n) => typed.extend(&buffer[..n]),
                    Err(gone) => alive = stays(Err(gone)),
                }
            }
            alive
        });
    }

    fn pass_typed(&mut self) {
        self.ends.room.clear();
        let bytes = self.typed.make_contiguous();
        if !bytes.is_empty() {
            let taken = self.ends.keyboard.offer(bytes);
            self.typed.drain(..taken);
        }
    }

    fn accept(&mut self) {
        let Some(socket) = self.listener.accept(Instant::now()) else { return };
        if self.clients.len() < MAX_CLIENTS {
            self.clients.push(Client::new(socket));
            return;
        }
        let text = format!("plimsoll: {MAX_CLIENTS} clients are attached to this console already\r\n");
        // A new socket takes a line; where it does not, the client sees the end of the connection.
        rustix::net::send(&socket, text.as_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT).ok();
    }
}

fn stays(result: Result<(), Gone>) -> bool {
    match result {
        Ok(()) => true,
        Err(why) => {
            tracing::debug!(%why, "a client of the console leaves");
            false
        }
    }
}

#[cfg(test)]
mod tests;
