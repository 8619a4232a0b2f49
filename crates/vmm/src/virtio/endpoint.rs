use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::interrupt::{Interrupt, Signal};
use super::negotiation::{Effect, Negotiation};
use super::{Activation, DeviceKind, VirtioDevice};

/// A device behind its registers, whatever the transport: what the registers' writes do to it.
pub(super) struct Endpoint {
    device: Box<dyn VirtioDevice>,
    interrupt: Interrupt,
    kicks: Arc<[EventFd]>,
}

impl Endpoint {
    /// Puts `device` behind registers. It interrupts by `signal`.
    ///
    /// # Errors
    /// No file descriptors left for the eventfds of its queues.
    pub(super) fn new(device: Box<dyn VirtioDevice>, signal: Arc<dyn Signal>) -> io::Result<Self> {
        let kicks: io::Result<Arc<[EventFd]>> =
            device.queue_sizes().iter().map(|_| EventFd::new(EFD_NONBLOCK)).collect();
        Ok(Self { device, interrupt: Interrupt::new(signal), kicks: kicks? })
    }

    /// What the device is.
    pub(super) fn kind(&self) -> DeviceKind {
        self.device.kind()
    }

    /// How it interrupts.
    pub(super) fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// What to write to notify a queue, by its number.
    pub(super) fn kicks(&self) -> &[EventFd] {
        &self.kicks
    }

    /// Reads configuration space from `offset`; zeros beyond its end.
    pub(super) fn read_config(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        self.device.read_config(offset, data);
    }

    /// Writes configuration space from `offset`.
    pub(super) fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.device.write_config(offset, data);
    }

    /// Does what a write to the registers of `negotiation` asks for.
    ///
    /// Waits as [`VirtioDevice::reset`] does when the guest resets the device: its driver takes its
    /// memory back right after.
    pub(super) fn apply(&mut self, effect: Effect, negotiation: &mut Negotiation) {
        match effect {
            Effect::None => {}
            Effect::Reset => self.reset(negotiation),
            Effect::Activate => self.device.activate(Activation {
                features: negotiation.accepted(),
                queues: negotiation.queues(),
                kicks: Arc::clone(&self.kicks),
                interrupt: self.interrupt.clone(),
            }),
            Effect::Notify(queue) => {
                if let Some(kick) = self.kicks.get(usize::from(queue)) {
                    // Fails only when the counter is full, and then the device is woken anyway.
                    kick.write(1).ok();
                }
            }
        }
    }

    /// Resets the device, as the guest does and as a reboot of the guest does. Waits as
    /// [`VirtioDevice::reset`] does.
    pub(super) fn reset(&mut self, negotiation: &mut Negotiation) {
        self.device.reset();
        negotiation.reset();
        self.interrupt.reset();
        for kick in &*self.kicks {
            // EAGAIN from an empty counter is fine.
            kick.read().ok();
        }
    }

    /// Takes the device out.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn into_device(self) -> Box<dyn VirtioDevice> {
        self.device
    }

    /// Waits until earlier requests of the guest are being served.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn barrier(&self) {
        self.device.barrier();
    }
}
