//! A VMM's first message, and the process of a VMM whose run record does not name it.
//!
//! A daemon that crashes between the start of a VMM and its run record leaves such a VMM, as does a
//! damaged record. The kernel adds the sender to each message on a connection that asks for it
//! (`SO_PASSCRED`), so the greeting names the process.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use plimsoll_protocol::control::{Facts, FromVmm, VERSION};
use plimsoll_protocol::wire::Wire;
use plimsoll_units::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recv, recvmsg};
use rustix::process::Pid;

use super::socket::connect_and_name_senders;
use crate::process::{Process, start_time};

/// What a VMM's first message says, if that is a greeting in this daemon's version of the protocol.
///
/// # Errors
/// It is not: `advice` says what to do about another version.
pub(crate) fn facts_of(greeting: FromVmm, advice: &str) -> anyhow::Result<Facts> {
    match greeting {
        FromVmm::Hello { version: VERSION, facts } => Ok(facts),
        FromVmm::Hello { version, .. } => {
            bail!("its VMM speaks version {version} of the protocol and this daemon {VERSION}: {advice}")
        }
        other => bail!("its VMM began with {other:?} instead of a greeting"),
    }
}

/// A VMM that has greeted.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) process: Process,
    /// It has a guest, or may have one.
    pub(crate) configured: bool,
}

/// Waits for at most `limit` for the VMM that listens in `directory` to greet.
///
/// # Errors
/// It did not, or is gone.
pub(crate) fn identify_by_greeting(directory: &Path, limit: Duration) -> anyhow::Result<Greeted> {
    let wire = connect_and_name_senders(directory).context("cannot connect to its VMM")?;
    let ready = poll(&mut [PollFd::new(&wire, PollFlags::IN)], Some(&Timespec::try_from(limit)?))?;
    ensure!(ready > 0, "its VMM does not answer");
    let pid =
        sender(&wire)?.context("the kernel does not name the sender of the greeting")?.as_raw_nonzero().get();
    let pid = pid.unsigned_abs();
    let process = Process::find(pid, start_time(pid).with_context(|| format!("process {pid}"))?)?;
    let configured = match wire.receive() {
        Ok((FromVmm::Hello { version: VERSION, facts }, _)) => facts.ram.1 > Bytes::ZERO,
        _ => true,
    };
    // As long as the connection lives, the number has not come to mean another process.
    let closed = matches!(recv(&wire, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((_, 0)));
    ensure!(!closed, "its VMM closed the connection");
    Ok(Greeted { process, configured })
}

/// Returns the sender of the next message, which stays unread.
fn sender(wire: &Wire) -> Result<Option<Pid>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut first = [0; 1];
    recvmsg(wire, &mut [IoSliceMut::new(&mut first)], &mut ancillary, RecvFlags::PEEK)?;
    let credentials = |message| match message {
        RecvAncillaryMessage::ScmCredentials(sender) => Some(sender.pid),
        _ => None,
    };
    Ok(ancillary.drain().find_map(credentials))
}
