//! The virtio-mmio register file (VIRTIO 1.2, section 4.2.2), over [`Negotiation`]: values in,
//! effects out. Writes to what is no writable register are ignored.

use super::negotiation::{Area, Effect, Half, Negotiation};

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
/// Any value would do: drivers do not look at it.
const VENDOR: u32 = u32::from_le_bytes(*b"PLIM");

/// Offsets of the registers, each 32 bits wide.
pub(super) mod offset {
    pub(crate) const MAGIC_VALUE: u64 = 0x000;
    pub(crate) const VERSION: u64 = 0x004;
    pub(crate) const DEVICE_ID: u64 = 0x008;
    pub(crate) const VENDOR_ID: u64 = 0x00c;
    pub(crate) const DEVICE_FEATURES: u64 = 0x010;
    pub(crate) const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub(crate) const DRIVER_FEATURES: u64 = 0x020;
    pub(crate) const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub(crate) const QUEUE_SEL: u64 = 0x030;
    pub(crate) const QUEUE_NUM_MAX: u64 = 0x034;
    pub(crate) const QUEUE_NUM: u64 = 0x038;
    pub(crate) const QUEUE_READY: u64 = 0x044;
    pub(crate) const QUEUE_NOTIFY: u64 = 0x050;
    pub(crate) const INTERRUPT_STATUS: u64 = 0x060;
    pub(crate) const INTERRUPT_ACK: u64 = 0x064;
    pub(crate) const STATUS: u64 = 0x070;
    pub(crate) const QUEUE_DESC_LOW: u64 = 0x080;
    pub(crate) const QUEUE_DESC_HIGH: u64 = 0x084;
    pub(crate) const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub(crate) const QUEUE_DRIVER_HIGH: u64 = 0x094;
    pub(crate) const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub(crate) const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    pub(crate) const SHM_LEN_LOW: u64 = 0x0b0;
    pub(crate) const SHM_BASE_HIGH: u64 = 0x0bc;
    pub(crate) const CONFIG_GENERATION: u64 = 0x0fc;
    /// Configuration space begins here; accesses to it are not 32 bits wide only.
    pub(crate) const CONFIG: u64 = 0x100;
}

/// Values that the registers show and that are kept elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Live {
    pub(super) interrupt_cause: u32,
    pub(super) needs_reset: bool,
    pub(super) config_generation: u32,
}

/// The register file.
pub(super) struct Registers {
    device_id: u32,
    pub(super) negotiation: Negotiation,
}

impl Registers {
    /// The registers of a device that offers `features` and has one queue per entry of
    /// `queue_sizes`.
    pub(super) fn new(device_id: u32, features: u64, queue_sizes: &[u16]) -> Self {
        Self { device_id, negotiation: Negotiation::new(features, queue_sizes) }
    }

    /// The value of the register at offset `register`; zero if no readable register is there.
    pub(super) fn read(&self, register: u64, live: Live) -> u32 {
        let negotiation = &self.negotiation;
        match register {
            offset::MAGIC_VALUE => MAGIC,
            offset::VERSION => VERSION,
            offset::DEVICE_ID => self.device_id,
            offset::VENDOR_ID => VENDOR,
            offset::DEVICE_FEATURES => negotiation.offered_word(),
            offset::QUEUE_NUM_MAX => negotiation.queue().map_or(0, |queue| queue.max().into()),
            offset::QUEUE_READY => negotiation.queue().is_some_and(|queue| queue.is_ready()).into(),
            offset::INTERRUPT_STATUS => live.interrupt_cause,
            offset::STATUS => negotiation.status(live.needs_reset),
            // No shared memory region: length and base read as all ones.
            offset::SHM_LEN_LOW..=offset::SHM_BASE_HIGH => u32::MAX,
            offset::CONFIG_GENERATION => live.config_generation,
            _ => 0,
        }
    }

    /// Writes `value` to the register at offset `register`. Returns what the transport has to do.
    pub(super) fn write(&mut self, register: u64, value: u32) -> Effect {
        let negotiation = &mut self.negotiation;
        match register {
            offset::DEVICE_FEATURES_SEL => negotiation.select_offered(value),
            offset::DRIVER_FEATURES_SEL => negotiation.select_accepted(value),
            offset::DRIVER_FEATURES => negotiation.accept_features(value),
            offset::QUEUE_SEL => negotiation.select_queue(value),
            // Without NOTIFICATION_DATA the value is the queue's number.
            offset::QUEUE_NOTIFY => return negotiation.notify(value),
            offset::STATUS => return negotiation.write_status(value),
            offset::QUEUE_READY => negotiation.set_queue_ready(value),
            offset::QUEUE_NUM => negotiation.set_queue_size(value),
            offset::QUEUE_DESC_LOW => negotiation.set_queue_address(Area::Descriptors, Half::Low, value),
            offset::QUEUE_DESC_HIGH => negotiation.set_queue_address(Area::Descriptors, Half::High, value),
            offset::QUEUE_DRIVER_LOW => negotiation.set_queue_address(Area::Driver, Half::Low, value),
            offset::QUEUE_DRIVER_HIGH => negotiation.set_queue_address(Area::Driver, Half::High, value),
            offset::QUEUE_DEVICE_LOW => negotiation.set_queue_address(Area::Device, Half::Low, value),
            offset::QUEUE_DEVICE_HIGH => negotiation.set_queue_address(Area::Device, Half::High, value),
            _ => {}
        }
        Effect::None
    }
}

#[cfg(test)]
mod tests;
