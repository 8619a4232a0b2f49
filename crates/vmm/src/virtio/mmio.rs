//! The virtio-mmio transport, version 2 (VIRTIO 1.2, section 4.2): one device in a window of
//! guest-physical addresses.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::interrupt::Interrupt;
use super::registers::{Effect, Live, Registers, offset};
use super::{Activation, DeviceKind, VirtioDevice};

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
    device: Box<dyn VirtioDevice>,
    interrupt: Interrupt,
    kicks: Arc<[EventFd]>,
}

impl MmioTransport {
    /// Puts `device` behind registers.
    ///
    /// # Errors
    /// No file descriptors left for the eventfds of its interrupt and queues.
    pub fn new(device: Box<dyn VirtioDevice>) -> io::Result<Self> {
        let kicks: io::Result<Arc<[EventFd]>> =
            device.queue_sizes().iter().map(|_| EventFd::new(EFD_NONBLOCK)).collect();
        Ok(Self {
            registers: Registers::new(device.kind().id(), device.features(), device.queue_sizes()),
            interrupt: Interrupt::new()?,
            kicks: kicks?,
            device,
        })
    }

    /// What the device is.
    pub fn kind(&self) -> DeviceKind {
        self.device.kind()
    }

    /// The eventfd to register as irqfd.
    pub fn line(&self) -> &EventFd {
        self.interrupt.line()
    }

    /// The eventfds to register as ioeventfds, by queue number, at [`NOTIFY_OFFSET`]. Notifications
    /// also work without them, through [`write`](Self::write), only slower.
    pub fn kicks(&self) -> &[EventFd] {
        &self.kicks
    }

    /// Serves a read of `data.len()` bytes at `offset` of the window.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(config) = offset.checked_sub(offset::CONFIG) {
            self.device.read_config(config, data);
        } else if let Ok(word) = <&mut [u8; 4]>::try_from(data) {
            let live = Live {
                interrupt_cause: self.interrupt.cause(),
                needs_reset: self.interrupt.is_reset_needed(),
                config_generation: self.interrupt.config_generation(),
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
            self.device.write_config(config, data);
        } else if let Ok(word) = <[u8; 4]>::try_from(data) {
            let effect = self.registers.write(offset, u32::from_le_bytes(word));
            self.apply(effect);
        }
    }

    /// Resets the device, as the guest does and as a reboot of the guest does. Waits as
    /// [`VirtioDevice::reset`] does.
    pub fn reset(&mut self) {
        self.device.reset();
        self.registers.reset();
        self.interrupt.reset();
        for kick in &*self.kicks {
            // EAGAIN from an empty counter is fine.
            kick.read().ok();
        }
    }

    /// Waits until earlier requests of the guest are being served.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn barrier(&self) {
        self.device.barrier();
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Reset => self.reset(),
            Effect::Activate => self.device.activate(Activation {
                features: self.registers.accepted(),
                queues: self.registers.queues(),
                kicks: Arc::clone(&self.kicks),
                interrupt: self.interrupt.clone(),
            }),
            Effect::Acknowledge(causes) => self.interrupt.acknowledge(causes),
            Effect::Notify(queue) => {
                if let Some(kick) = self.kicks.get(usize::from(queue)) {
                    // Fails only when the counter is full, and then the device is woken anyway.
                    kick.write(1).ok();
                }
            }
        }
    }
}
