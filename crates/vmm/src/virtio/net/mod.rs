//! The network interface (VIRTIO 1.2, section 5.1): a tap device, one pair of queues.
//!
//! Packets pass through a buffer of the device's own, one copy each way. So the guest cannot change
//! the header that the kernel sees, and no system call waits for a page of the guest.
//!
//! Mergeable receive buffers let a guest take large packets without keeping 64 KiB for each slot of
//! its queue: memory that it would never give back.
//!
//! An interface may be held to a rate in each direction (`pace.rs`), which may change while it
//! runs: packets that leave then wait in the queue, packets that arrive in the tap device, which
//! drops those for which it has no room.
//!
//! Its cable may be unplugged (`gate.rs`): packets of both directions are then lost, and the guest
//! is told. Packets that the guest sends from another address than its own may be dropped.

mod back;
mod gate;
mod handle;
mod pace;
mod tap;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use plimsoll_pmap::Pmap;
use plimsoll_protocol::control::NetConfig;
use plimsoll_protocol::definition::MacAddress;

use super::worker::Worker;
use super::{DeviceKind, NoticeSink, VirtioDevice, feature, read_config_bytes};
use back::NetBack;
pub use handle::NetHandle;
use handle::Shared;

/// Receive and transmit. Longer queues take bursts, and keep more of the guest's memory in buffers.
const QUEUE_SIZES: &[u16] = &[256, 256];
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// `struct virtio_net_hdr_v1`, before every packet in both directions.
const HEADER: usize = 12;
/// A header and the longest packet that segmentation offload makes: 64 KiB of IP and an Ethernet
/// header with a VLAN tag.
const MAX_PACKET: usize = HEADER + 65535 + 18;

/// Feature bits (VIRTIO 1.2, section 5.1.3).
mod bit {
    pub(super) const CSUM: u64 = 1 << 0;
    pub(super) const GUEST_CSUM: u64 = 1 << 1;
    pub(super) const MAC: u64 = 1 << 5;
    pub(super) const GUEST_TSO4: u64 = 1 << 7;
    pub(super) const GUEST_TSO6: u64 = 1 << 8;
    pub(super) const HOST_TSO4: u64 = 1 << 11;
    pub(super) const HOST_TSO6: u64 = 1 << 12;
    pub(super) const MRG_RXBUF: u64 = 1 << 15;
    pub(super) const STATUS: u64 = 1 << 16;
}

/// The host's end of the interface.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
    is_tap: bool,
}

impl Link {
    /// A tap device, made with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`.
    ///
    /// # Errors
    /// `fd` is no tap device, or was made without these flags, or the kernel refuses to
    /// set it up.
    pub fn tap(fd: OwnedFd) -> io::Result<Self> {
        tap::check(&fd)?;
        tap::set_header_length(&fd, HEADER)?;
        tap::set_offloads(&fd, 0)?;
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd, is_tap: true })
    }

    /// Anything that keeps packets apart, such as a socket of type `SOCK_SEQPACKET` or
    /// `SOCK_DGRAM`: each packet comes with its virtio header of 12 bytes, and the other end takes
    /// no offloads. An empty packet is the end of the link.
    ///
    /// # Errors
    /// It cannot be made non-blocking.
    pub fn packets(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd, is_tap: false })
    }
}

/// The front of a network interface.
pub struct Net {
    features: u64,
    mac: MacAddress,
    shared: Arc<Shared>,
    worker: Worker,
}

impl Net {
    /// An interface that reads and writes `memory`. `name` is for its thread and in notices.
    ///
    /// # Errors
    /// No file descriptor or no thread left.
    pub fn new(
        name: &str,
        link: Link,
        config: NetConfig,
        memory: &Arc<Pmap>,
        notices: NoticeSink,
    ) -> io::Result<Self> {
        let always = feature::COMMON | bit::MAC | bit::MRG_RXBUF | bit::STATUS;
        let offloads =
            bit::CSUM | bit::GUEST_CSUM | bit::GUEST_TSO4 | bit::GUEST_TSO6 | bit::HOST_TSO4 | bit::HOST_TSO6;
        let features = always | if link.is_tap { offloads } else { 0 };
        let NetConfig { mac, settings } = config;
        let shared = Arc::new(Shared::new(settings));
        let (ram, with_back) = (memory.ram().clone(), Arc::clone(&shared));
        let back = NetBack::new(name, link, mac, ram, with_back, Arc::clone(&notices));
        let worker = Worker::spawn(name.to_owned(), back, notices)?;
        Ok(Self { features, mac, shared, worker })
    }

    /// A handle that changes the interface while it runs.
    pub fn handle(&self) -> NetHandle {
        NetHandle::new(Arc::clone(&self.shared), self.worker.bell())
    }
}

impl VirtioDevice for Net {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Net
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn worker(&self) -> &Worker {
        &self.worker
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; 8];
        config[..6].copy_from_slice(&self.mac.0);
        config[6..].copy_from_slice(&u16::from(self.shared.is_up()).to_le_bytes()); // LINK_UP
        read_config_bytes(&config, offset, data);
    }
}
