//! Sockets between the guest and the host (VIRTIO 1.2, section 5.10): streams, without a network.
//!
//! | who begins | how |
//! |---|---|
//! | the host | a program connects to the VM's unix socket, says `CONNECT PORT\n` and hears `OK PORT\n` |
//! | the guest | it connects to a port of context identifier 2; the daemon connects to the unix socket that stands for that port, and passes the connection |
//!
//! The device can open no socket: the jail has no file system, and the filter of system calls no
//! `socket` and no `connect`. The listener is passed when the VM starts. To reach a port of the
//! host it asks the daemon, which looks in one directory, under one name, and nowhere else. While
//! there is no daemon, the guest is refused. While the guest has no driver, programs of the host
//! wait for one for as long as they may take to name a port; then they are hung up.
//!
//! `packet` is the header, `credit` the account of what each side has room for, `stream` the host's
//! end of a connection, `connection` its stages, `listener` where programs of the host come in,
//! `connections` all of them, `back` the queues. Data passes through a buffer of the device's
//! own, one copy each way, so no system call waits for a page of the guest.
//!
//! An end on the host that does not read fills its connection's buffer, and then the guest has no
//! credit for it: other connections go on. A guest that breaks the rules of a connection loses that
//! connection, and one that breaks the rules of a queue stops the device, as with other devices.

mod back;
mod connection;
mod connections;
mod credit;
mod listener;
mod packet;
mod stream;
#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), allow(dead_code, reason = "tests use more of it"))]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests, which fuzzing uses as well")]
pub(super) mod testing;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use plimsoll_pmap::Pmap;
use plimsoll_protocol::control::VsockConfig;
use plimsoll_sys::Event;

use super::worker::Worker;
use super::{DeviceKind, NoticeSink, VirtioDevice, feature, read_config_bytes};
use back::{Answer, VsockBack};
use connections::Connections;

/// Packets to the guest, packets of the guest, events. Longer queues take bursts, and keep more of
/// the guest's memory in buffers: Linux fills the first with buffers of 4 KiB.
const QUEUE_SIZES: &[u16] = &[128, 128, 16];
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// Asks for a connection to a port of the host. The first number comes back with the answer
/// ([`VsockHandle::dialed`]), the second is the port. Returns whether the question is on its way.
/// The device's thread calls it; it never waits.
pub type Dial = Arc<dyn Fn(u64, u32) -> bool + Send + Sync>;

/// The front of the vsock device.
pub struct Vsock {
    /// The guest's context identifier.
    cid: u64,
    worker: Worker,
}

/// Brings a device the answers to its questions. No call waits.
#[derive(Clone, Debug)]
pub struct VsockHandle {
    answers: Sender<Answer>,
    bell: Event,
}

impl VsockHandle {
    /// The answer to question `id`: a connected stream socket; `None`: the host does not take the
    /// connection. An answer that comes late is dropped.
    pub fn dialed(&self, id: u64, socket: Option<OwnedFd>) {
        // An error means that the device is gone.
        if self.answers.send((id, socket)).is_ok() {
            self.bell.signal();
        }
    }
}

impl Vsock {
    /// A device that reads and writes `memory`, and its handle. `listener` is a listening stream
    /// socket for programs of the host; `None`: none can reach the guest. `name` is for its thread
    /// and in notices.
    ///
    /// # Errors
    /// The listener cannot be made non-blocking, or no file descriptor or thread is left.
    pub fn new(
        name: &str,
        config: VsockConfig,
        listener: Option<OwnedFd>,
        dial: Dial,
        memory: &Arc<Pmap>,
        notices: NoticeSink,
    ) -> io::Result<(Self, VsockHandle)> {
        if let Some(listener) = &listener {
            rustix::io::ioctl_fionbio(listener, true)?;
        }
        let (answers, inbox) = mpsc::channel();
        let bell = Event::new()?;
        let connections = Connections::new(config.cid, config.connections.into(), listener, dial);
        let ram = memory.ram().clone();
        let back = VsockBack::new(name, connections, inbox, bell.clone(), ram, Arc::clone(&notices));
        let worker = Worker::spawn(name.to_owned(), back, notices)?;
        Ok((Self { cid: config.cid.into(), worker }, VsockHandle { answers, bell }))
    }
}

impl VirtioDevice for Vsock {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Vsock
    }

    fn features(&self) -> u64 {
        // Without a feature of its own it has streams only.
        feature::COMMON
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn worker(&self) -> &Worker {
        &self.worker
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.cid.to_le_bytes(), offset, data);
    }
}
