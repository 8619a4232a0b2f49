//! The virtio-pci transport without its legacy interface (VIRTIO 1.2, section 4.1): one device as
//! one PCI function.
//!
//! The function has one BAR:
//!
//! | from | is |
//! |---|---|
//! | 0x0000 | common configuration |
//! | 0x1000 | interrupt status, cleared by being read |
//! | 0x2000 | the device's configuration space |
//! | 0x3000 | notifications: four bytes a queue, any write notifies |
//! | 0x4000 | the table of message-signalled interrupts |
//! | 0x5000 | their pending bits |
//!
//! There is one vector for each queue, and one for the configuration. Interrupt pins and a reset of
//! the function (FLR) are not offered: writing status 0 resets the device. A driver without
//! messages can look at the interrupt status.

mod common;
mod messages;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::endpoint::Endpoint;
use super::interrupt::Signal;
use super::negotiation::Effect;
use super::{DeviceKind, VirtioDevice};
use crate::pci::{ConfigSpace, Function, Identity, Msix, Wiring};
#[cfg(any(test, feature = "fuzzing"))]
pub(super) use common::field;
use common::{CommonConfig, Live};
use messages::Messages;
#[cfg(test)]
use messages::NO_VECTOR;

/// Length of the BAR.
pub(crate) const BAR_LENGTH: u64 = 0x8000;

/// Where the parts of the BAR begin; each has a page.
pub(super) mod part {
    pub(crate) const COMMON: u32 = 0x0000;
    pub(crate) const ISR: u32 = 0x1000;
    pub(crate) const CONFIG: u32 = 0x2000;
    pub(crate) const NOTIFY: u32 = 0x3000;
    pub(crate) const TABLE: u32 = 0x4000;
    pub(crate) const PENDING: u32 = 0x5000;
    /// Length of each.
    pub(crate) const LENGTH: u32 = 0x1000;
}

/// Bytes for each queue in the part for notifications.
const NOTIFY_STRIDE: u32 = 4;

/// Numbers of capabilities (PCI Code and ID Assignment 1.11, section 2).
mod capability {
    pub(super) const VENDOR: u8 = 0x09;
    pub(super) const MSIX: u8 = 0x11;
}

/// What a vendor capability of virtio leads to (`VIRTIO_PCI_CAP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leads {
    Common = 1,
    Notify = 2,
    Isr = 3,
    Device = 4,
    Window = 5,
}

/// In the control word of MSI-X: messages are sent; all vectors are masked.
const MSIX_ENABLE: u16 = 1 << 15;
const MSIX_MASK: u16 = 1 << 14;

/// Red Hat's number, which virtio uses.
const VENDOR: u16 = 0x1af4;
/// The first device number of functions without a legacy interface.
const FIRST_DEVICE: u16 = 0x1040;

/// A device as a PCI function.
pub(crate) struct PciTransport {
    config: ConfigSpace,
    common: CommonConfig,
    endpoint: Endpoint,
    messages: Arc<Messages>,
    msix: Arc<Msix>,
    wiring: Arc<dyn Wiring>,
    /// Where its capabilities for MSI-X and for access through configuration space are.
    msix_at: usize,
    window_at: usize,
    /// Where its BAR is mapped.
    mapped: Option<u64>,
}

impl PciTransport {
    /// The number of lines that `device` needs.
    pub(crate) fn lines(device: &dyn VirtioDevice) -> u16 {
        u16::try_from(device.queue_sizes().len() + 1).unwrap_or(u16::MAX)
    }

    /// Makes a function of `device`, with its BAR at `base` and interrupts of the lines from
    /// `first_line` on.
    ///
    /// # Errors
    /// No file descriptors left for the eventfds of its interrupts and queues.
    pub(crate) fn new(
        device: Box<dyn VirtioDevice>,
        base: u64,
        first_line: u32,
        wiring: Arc<dyn Wiring>,
    ) -> io::Result<Self> {
        let (kind, queues) = (device.kind(), device.queue_sizes().len());
        let vectors = Self::lines(&*device);
        let msix = Arc::new(Msix::new(vectors, first_line, Arc::clone(&wiring))?);
        let messages = Arc::new(Messages::new(Arc::clone(&msix), queues));
        let common = CommonConfig::new(device.features(), device.queue_sizes(), Arc::clone(&messages));
        let endpoint = Endpoint::new(device, Arc::clone(&messages) as Arc<dyn Signal>)?;
        let (config, msix_at, window_at) = configuration(kind, base, vectors);
        Ok(Self { config, common, endpoint, messages, msix, wiring, msix_at, window_at, mapped: None })
    }

    /// Its interrupts, whose lines KVM connects.
    pub(crate) fn msix(&self) -> &Arc<Msix> {
        &self.msix
    }

    /// Waits until earlier requests of the guest are being served.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn barrier(&self) {
        self.endpoint.barrier();
    }

    /// What notifies its queues.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn kicks(&self) -> &[vmm_sys_util::eventfd::EventFd] {
        self.endpoint.kicks()
    }

    fn apply(&mut self, effect: Effect) {
        if effect == Effect::Reset {
            self.messages.reset();
        }
        self.endpoint.apply(effect, &mut self.common.negotiation);
    }

    /// The offset in the BAR that an access to the data of the window capability is for, if the
    /// access is as long as the window says (section 4.1.4.9).
    fn windowed(&self, offset: usize, len: usize) -> Option<u64> {
        if offset != self.window_at + 16 {
            return None;
        }
        let [bar] = self.config.bytes(self.window_at + 4);
        let at = u32::from_le_bytes(self.config.bytes(self.window_at + 8));
        let length = u32::from_le_bytes(self.config.bytes(self.window_at + 12));
        let fits = matches!(length, 1 | 2 | 4)
            && length as usize == len
            && at.is_multiple_of(length)
            && u64::from(at) < BAR_LENGTH;
        (bar == 0 && fits).then_some(at.into())
    }

    /// Where queues are notified, with the BAR at `base`.
    fn doorbells(&self, base: u64) -> impl Iterator<Item = (u64, &vmm_sys_util::eventfd::EventFd)> {
        let first = base + u64::from(part::NOTIFY);
        (0..).map(move |queue| first + queue * u64::from(NOTIFY_STRIDE)).zip(self.endpoint.kicks())
    }
}

impl Function for PciTransport {
    fn read_config(&mut self, offset: usize, data: &mut [u8]) {
        match self.windowed(offset, data.len()) {
            Some(at) => self.read_bar(at, data),
            None => self.config.read(offset, data),
        }
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        if let Some(at) = self.windowed(offset, data.len()) {
            self.write_bar(at, data);
        }
        self.config.write(offset, data);
        let control = u16::from_le_bytes(self.config.bytes(self.msix_at + 2));
        self.msix.control(control & MSIX_ENABLE != 0, control & MSIX_MASK != 0);
    }

    fn bar(&self) -> Option<Range<u64>> {
        self.config.bar().map(|base| base..base.saturating_add(BAR_LENGTH))
    }

    fn map(&mut self, base: Option<u64>) {
        if self.mapped == base {
            return;
        }
        if let Some(base) = self.mapped {
            self.doorbells(base).for_each(|(address, kick)| self.wiring.unwatch(address, kick));
        }
        if let Some(base) = base {
            self.doorbells(base).for_each(|(address, kick)| self.wiring.watch(address, kick));
        }
        self.mapped = base;
    }

    /// Serves a read of `data.len()` bytes at `offset` of the BAR.
    fn read_bar(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Ok(offset) = u32::try_from(offset) else { return };
        let at = u64::from(offset % part::LENGTH);
        let interrupt = self.endpoint.interrupt();
        match offset - offset % part::LENGTH {
            part::COMMON => {
                let live = Live {
                    needs_reset: interrupt.is_reset_needed(),
                    config_generation: interrupt.config_generation(),
                };
                let value = self.common.read(at, data.len(), live).to_le_bytes();
                data.iter_mut().zip(value).for_each(|(byte, value)| *byte = value);
            }
            part::ISR if at == 0 => {
                let cause = interrupt.acknowledge(u32::MAX).to_le_bytes();
                data.iter_mut().zip(cause).for_each(|(byte, cause)| *byte = cause);
            }
            part::CONFIG => self.endpoint.read_config(at, data),
            part::TABLE => self.msix.read_table(at, data),
            part::PENDING => self.msix.read_pending(at, data),
            _ => {}
        }
    }

    /// Serves a write of `data` at `offset` of the BAR.
    ///
    /// Waits as [`VirtioDevice::reset`] does when the guest resets the device: its driver takes its
    /// memory back right after.
    fn write_bar(&mut self, offset: u64, data: &[u8]) {
        let Ok(offset) = u32::try_from(offset) else { return };
        let at = offset % part::LENGTH;
        match offset - at {
            part::COMMON => {
                let mut value = [0; 4];
                value.iter_mut().zip(data).for_each(|(byte, new)| *byte = *new);
                let effect = self.common.write(at.into(), data.len(), u32::from_le_bytes(value));
                self.apply(effect);
            }
            part::CONFIG => self.endpoint.write_config(at.into(), data),
            part::NOTIFY => {
                let effect = self.common.negotiation.notify(at / NOTIFY_STRIDE);
                self.apply(effect);
            }
            part::TABLE => self.msix.write_table(at.into(), data),
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.apply(Effect::Reset);
        self.msix.reset();
        self.config.reset();
        self.map(None);
    }
}

/// The configuration space of a function, and where its capabilities for MSI-X and for access
/// through configuration space are.
fn configuration(kind: DeviceKind, base: u64, vectors: u16) -> (ConfigSpace, usize, usize) {
    let number = u16::try_from(kind.id()).unwrap_or(0);
    let mut config = ConfigSpace::new(Identity {
        vendor: VENDOR,
        device: FIRST_DEVICE + number,
        class: class(kind),
        // One and above: no legacy interface.
        revision: 1,
        subsystem: number,
    });
    config.add_bar(base, BAR_LENGTH);
    let mut msix = [0; 10];
    msix[..2].copy_from_slice(&(vectors - 1).to_le_bytes());
    msix[2..6].copy_from_slice(&part::TABLE.to_le_bytes());
    msix[6..].copy_from_slice(&part::PENDING.to_le_bytes());
    let msix_at = config.add_capability(capability::MSIX, &msix);
    config.allow(msix_at + 2, &(MSIX_ENABLE | MSIX_MASK).to_le_bytes());
    let vendor = |config: &mut ConfigSpace, leads: Leads, at: u32, length: u32, rest: &[u8]| {
        #[expect(clippy::cast_possible_truncation, reason = "at most 20")]
        let mut body = vec![16 + rest.len() as u8, leads as u8, 0, 0, 0, 0];
        body.extend(at.to_le_bytes());
        body.extend(length.to_le_bytes());
        body.extend(rest);
        config.add_capability(capability::VENDOR, &body)
    };
    vendor(&mut config, Leads::Common, part::COMMON, common::LENGTH, &[]);
    vendor(&mut config, Leads::Notify, part::NOTIFY, part::LENGTH, &NOTIFY_STRIDE.to_le_bytes());
    vendor(&mut config, Leads::Isr, part::ISR, 1, &[]);
    vendor(&mut config, Leads::Device, part::CONFIG, part::LENGTH, &[]);
    let window_at = vendor(&mut config, Leads::Window, 0, 0, &[0; 4]);
    config.allow(window_at + 4, &[0xff]);
    config.allow(window_at + 8, &[0xff; 12]);
    (config, msix_at, window_at)
}

/// Base class, subclass, programming interface. Drivers look at the device number instead.
fn class(kind: DeviceKind) -> [u8; 3] {
    match kind {
        DeviceKind::Net => [0x02, 0x00, 0x00],
        DeviceKind::Block => [0x01, 0x80, 0x00],
        DeviceKind::Vsock => [0x07, 0x80, 0x00],
        DeviceKind::Entropy | DeviceKind::Balloon => [0xff, 0x00, 0x00],
    }
}
