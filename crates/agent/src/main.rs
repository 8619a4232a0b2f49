//! `plimsoll-agent`, which runs in a guest: it runs the commands of `plimsoll exec` as root.
//!
//! It listens at one port of the guest's vsock and serves connections of the host alone: other
//! programs of the guest, which could come by the loopback, are hung up. Each connection is one
//! command ([`plimsoll_protocol::agent`]). A guest without it loses `plimsoll exec` and nothing
//! else.
//!
//! [`session`] is one connection, [`command`] a command that runs, [`slots`] how many there may be.
//! With the argument `install` it makes itself a service of systemd ([`install`]).

#![allow(clippy::print_stderr, reason = "a service's log is its standard error")]

mod command;
mod install;
mod session;
mod slots;

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use plimsoll_protocol::agent::AGENT_PORT;
use plimsoll_sys::vsock;

use crate::slots::Slots;

/// Most commands at a time. Beyond it commands are refused, so that a host which repeats itself
/// does not fill the guest with processes.
const MOST_SESSIONS: usize = 64;
/// Most connections at a time whose command is being refused. Beyond it they are hung up without
/// a word: each takes a thread until its client has heard why.
const MOST_REFUSALS: usize = 16;
/// Pause after a connection could not be accepted: the guest is short of descriptors or memory.
const PAUSE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => listen(),
        ["install"] => match install::install() {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("plimsoll-agent: {why}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("Usage: plimsoll-agent [install]");
            ExitCode::from(2)
        }
    }
}

/// Serves the host. Returns only where that cannot be done.
fn listen() -> ExitCode {
    let listener = match vsock::listen(AGENT_PORT) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!(
                "plimsoll-agent: cannot listen at port {AGENT_PORT} of vsock: {error} (the VM needs [vsock] in its \
                 definition, and the guest the driver vmw_vsock_virtio_transport)"
            );
            return ExitCode::FAILURE;
        }
    };
    let (sessions, refusals) = (Slots::new(MOST_SESSIONS), Slots::new(MOST_REFUSALS));
    loop {
        match vsock::accept(&listener) {
            Ok((socket, peer)) => serve(socket, peer, &sessions, &refusals),
            Err(error) => {
                eprintln!("plimsoll-agent: cannot accept a connection: {error}");
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// Serves a connection from the context identifier `peer` on a thread of its own.
fn serve(socket: OwnedFd, peer: u32, sessions: &Slots, refusals: &Slots) {
    if peer != vsock::HOST {
        eprintln!("plimsoll-agent: a program that is not the host's, but of {peer}, is hung up");
        return;
    }
    if let Err(error) = rustix::io::ioctl_fionbio(&socket, true) {
        eprintln!("plimsoll-agent: a connection cannot be used: {error}");
        return;
    }
    let (slot, is_refused) = match sessions.take() {
        Some(slot) => (slot, false),
        None => {
            eprintln!("plimsoll-agent: {MOST_SESSIONS} commands run already: one more is refused");
            let Some(slot) = refusals.take() else { return };
            (slot, true)
        }
    };
    let thread = std::thread::Builder::new().spawn(move || {
        // Its place is free when the thread has ended, however it ends.
        let _slot = slot;
        let ended = if is_refused {
            session::refuse(socket, &format!("{MOST_SESSIONS} commands of plimsoll exec and cp run already"))
        } else {
            session::serve(socket)
        };
        if let Err(error) = ended {
            eprintln!("plimsoll-agent: {error}");
        }
    });
    if let Err(error) = thread {
        eprintln!("plimsoll-agent: no thread for a command: {error}");
    }
}
