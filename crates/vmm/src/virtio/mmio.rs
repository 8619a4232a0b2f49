//! The virtio-mmio transport, version 2 (VIRTIO 1.2, section 4.2): one device in a window of
//! guest-physical addresses.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::endpoint::Endpoint;
use super::interrupt::Signal;
use super::registers::{Live, Registers, offset};
use super::{DeviceKind, VirtioDevice};

/// Length of the window. The registers take 0x100 bytes and the longest configuration space fewer
/// than as many again; a whole page keeps two devices from sharing one.
pub const WINDOW: u64 = 0x1000;
/// Where in the window the driver writes a queue's number to notify it: the address for ioeventfd,
/// four bytes wide, with the queue's number as the value to match.
pub const NOTIFY_OFFSET: u64 = offset::QUEUE_NOTIFY;

/// A device behind its registers. The VM's bus calls it for every access to the window, one at a
/// time.
pub struct MmioTransport {
    registers: Registers,
    endpoint: Endpoint,
    line: Arc<Line>,
}

/// An edge-triggered interrupt line: one for all of the device's reasons.
struct Line(EventFd);

impl Signal for Line {
    fn used_buffer(&self, _queue: usize) {
        // Fails only when the counter is full, and then the line is pulsed anyway.
        self.0.write(1).ok();
    }

    fn config_change(&self) {
        self.0.write(1).ok();
    }
}

impl MmioTransport {
    /// Puts `device` behind registers.
    ///
    /// # Errors
    /// No file descriptors left for the eventfds of its interrupt and queues.
    pub fn new(device: Box<dyn VirtioDevice>) -> io::Result<Self> {
        let registers = Registers::new(device.kind().id(), device.features(), device.queue_sizes());
        let line = Arc::new(Line(EventFd::new(EFD_NONBLOCK)?));
        let endpoint = Endpoint::new(device, Arc::clone(&line) as Arc<dyn Signal>)?;
        Ok(Self { registers, endpoint, line })
    }

    /// What the device is.
    pub fn kind(&self) -> DeviceKind {
        self.endpoint.kind()
    }

    /// The eventfd to register as irqfd.
    pub fn line(&self) -> &EventFd {
        &self.line.0
    }

    /// The eventfds to register as ioeventfds, by queue number, at [`NOTIFY_OFFSET`]. Notifications
    /// also work without them, through [`write`](Self::write), only slower.
    pub fn kicks(&self) -> &[EventFd] {
        self.endpoint.kicks()
    }

    /// Serves a read of `data.len()` bytes at `offset` of the window.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(config) = offset.checked_sub(offset::CONFIG) {
            self.endpoint.read_config(config, data);
        } else if let Ok(word) = <&mut [u8; 4]>::try_from(data) {
            let interrupt = self.endpoint.interrupt();
            let live = Live {
                interrupt_cause: interrupt.cause(),
                needs_reset: interrupt.is_reset_needed(),
                config_generation: interrupt.config_generation(),
            };
            *word = self.registers.read(offset, live).to_le_bytes();
        }
    }

    /// Serves a write of `data` at `offset` of the window.
    ///
    /// Waits as [`VirtioDevice::reset`] does when the guest resets the device: its driver takes its
    /// memory back right after.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(config) = offset.checked_sub(offset::CONFIG) {
            self.endpoint.write_config(config, data);
        } else if let Ok(word) = <[u8; 4]>::try_from(data) {
            let value = u32::from_le_bytes(word);
            if offset == offset::INTERRUPT_ACK {
                self.endpoint.interrupt().acknowledge(value);
                return;
            }
            let effect = self.registers.write(offset, value);
            self.endpoint.apply(effect, &mut self.registers.negotiation);
        }
    }

    /// Resets the device, as the guest does and as a reboot of the guest does. Waits as
    /// [`VirtioDevice::reset`] does.
    pub fn reset(&mut self) {
        self.endpoint.reset(&mut self.registers.negotiation);
    }

    /// Takes the device out.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn into_device(self) -> Box<dyn VirtioDevice> {
        self.endpoint.into_device()
    }

    /// Waits until earlier requests of the guest are being served.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn barrier(&self) {
        self.endpoint.barrier();
    }
}
