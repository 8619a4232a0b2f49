//! The VM's virtio devices (VIRTIO 1.2) and the transport that shows them to the guest.
//!
//! A device has two halves. The front, a [`VirtioDevice`], answers the transport on the vCPU's
//! thread: identity, features, configuration space. The back owns the queues and runs on a thread
//! of its own, the device's `worker`, because it touches guest memory and every touch may wait for
//! a grant. The front never waits for the back, except in [`VirtioDevice::reset`], and no device
//! waits for another. In particular, the balloon gives memory back while the disk waits for some.
//!
//! There are two transports, [`mmio::MmioTransport`] and `pci::PciTransport`. What they share is in
//! `endpoint`, `negotiation` and `interrupt`; [`VirtioDevice`] knows nothing of registers.
//!
//! The guest is hostile. What it writes to registers is checked by the state machine in
//! `negotiation`, and what it writes to queues by the rules in `ring`. A queue that breaks the
//! rules stops its device with `DEVICE_NEEDS_RESET` and one notice. The work for one notification
//! is bounded.
//!
//! # System calls of the device threads
//!
//! For the seccomp filter, beside what the allocator, mutexes and the end of a thread need:
//!
//! | thread | calls |
//! |---|---|
//! | all | `ppoll`, `read` and `write` (eventfds), `clock_gettime`; short of memory `clock_nanosleep` and `sched_yield` |
//! | block | `io_uring_enter`; without io_uring `preadv`, `pwritev`, `fdatasync`, `fallocate`; either way `pwrite64` |
//! | net | `read` and `write` on the link, `ioctl` with `TUNSETOFFLOAD` when a driver starts and ends |
//! | entropy | `getrandom` |
//! | vsock | `accept4`, `recvfrom`, `sendto` and `shutdown` on its sockets, `setsockopt` with `SO_SNDBUF` |
//! | block, pins | `write` (eventfd), what the pmap does to bring pages back |
//! | balloon | what the pmap does to release pages |
//!
//! On PCI, any of them, and vCPUs, may call `ioctl` with `KVM_SET_GSI_ROUTING`, when the guest has
//! moved or unmasked an interrupt, and vCPUs with `KVM_IOEVENTFD`, when it has moved a BAR.
//!
//! `io_uring_setup`, `io_uring_register` and the other `ioctl`s of tap devices are called only when
//! a device or its link is made, and the threads start then, too: make them before the jail closes.

mod back;
pub mod balloon;
pub mod block;
mod endpoint;
pub mod entropy;
mod eventfd;
#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), allow(dead_code, reason = "tests use more of it"))]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests, which fuzzing uses as well")]
mod hostile_tests;
pub mod interrupt;
pub mod mmio;
mod negotiation;
pub mod net;
mod notices;
pub(crate) mod pci;
mod rate;
mod registers;
mod ring;
#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), allow(dead_code, reason = "tests use more of it"))]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests, which fuzzing uses as well")]
pub(crate) mod testing;
pub mod vsock;
mod worker;

use std::sync::Arc;

use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

#[cfg(feature = "fuzzing")]
pub(crate) use hostile_tests::fuzz;
use interrupt::Interrupt;
use worker::Worker;

/// What a device is, by the number that virtio gives it (VIRTIO 1.2, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A network interface.
    Net,
    /// A disk.
    Block,
    /// A source of random numbers.
    Entropy,
    /// The memory balloon.
    Balloon,
    /// Sockets between guest and host.
    Vsock,
}

impl DeviceKind {
    /// The device's number.
    pub fn id(self) -> u32 {
        match self {
            Self::Net => 1,
            Self::Block => 2,
            Self::Entropy => 4,
            Self::Balloon => 5,
            Self::Vsock => 19,
        }
    }

    /// The device's name in messages and of its thread.
    pub fn name(self) -> &'static str {
        match self {
            Self::Net => "net",
            Self::Block => "block",
            Self::Entropy => "entropy",
            Self::Balloon => "balloon",
            Self::Vsock => "vsock",
        }
    }
}

/// Feature bits that belong to no device in particular (VIRTIO 1.2, section 6).
pub mod feature {
    /// The driver may put a chain into a table of its own.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Each side names the used or available index of which it wants to be notified.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// The device follows VIRTIO 1.0 or later. A driver that does not accept it is refused.
    pub const VERSION_1: u64 = 1 << 32;
    /// What every device offers.
    pub const COMMON: u64 = INDIRECT_DESC | EVENT_IDX | VERSION_1;
}

/// What a driver has set up when it declares itself ready.
pub struct Activation {
    /// The features that both sides agreed on.
    pub features: u64,
    /// One entry per queue of the device; `None` where the driver did not make it ready. Sizes and
    /// alignment are checked, the addresses are not yet held against guest memory.
    pub queues: Vec<Option<Queue>>,
    /// One per queue: readable after the driver has notified it.
    pub kicks: Arc<[EventFd]>,
    /// How the device interrupts the driver.
    pub interrupt: Interrupt,
}

/// The front half of a device, as a transport sees it.
///
/// Its life is any number of rounds of [`activate`](Self::activate) and [`reset`](Self::reset). The
/// transport calls it from vCPU threads, one call at a time. Configuration space may be read and
/// written at any time. Nothing here touches guest memory.
pub trait VirtioDevice: Send {
    /// What it is.
    fn kind(&self) -> DeviceKind;

    /// The features it offers, [`feature::COMMON`] among them. Never changes.
    fn features(&self) -> u64;

    /// The largest size of each of its queues: powers of two. Never changes.
    fn queue_sizes(&self) -> &[u16];

    /// The thread that serves its queues.
    fn worker(&self) -> &Worker;

    /// Reads configuration space from `offset`. Bytes beyond its end are left as they are (the
    /// caller has zeroed `data`).
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes configuration space from `offset`. What the driver may not write is ignored.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready: begin to serve its queues. Never called twice without a reset in
    /// between.
    fn activate(&mut self, activation: Activation) {
        self.worker().start(activation);
    }

    /// Returns the device to its state after creation. Afterwards no I/O is in flight and the
    /// device touches guest memory no more. It waits for the device's I/O, and for pages for which
    /// the device waits.
    fn reset(&mut self) {
        self.worker().stop();
    }

    /// Waits until what the guest asked for before has been taken up.
    #[cfg(any(test, feature = "fuzzing"))]
    fn barrier(&self) {
        self.worker().barrier();
    }
}

/// Takes reports of what the operator should know and what stops nothing. Device threads call it,
/// seldom.
pub type NoticeSink = Arc<dyn Fn(String) + Send + Sync>;

/// Copies the part of `config` that begins at `offset` to the front of `data`:
/// [`VirtioDevice::read_config`] for devices whose configuration space is an array of bytes.
fn read_config_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    let Some(tail) = usize::try_from(offset).ok().and_then(|offset| config.get(offset..)) else { return };
    let count = tail.len().min(data.len());
    data[..count].copy_from_slice(&tail[..count]);
}
