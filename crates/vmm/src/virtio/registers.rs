//! The virtio-mmio register file (VIRTIO 1.2, section 4.2.2) as a pure state machine: values in,
//! effects out.
//!
//! The driver is hostile: a write that is out of order, out of bounds or unknown is ignored, and
//! reads of what does not exist give zero. In particular
//!
//! - status bits are only ever added, in the order ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK;
//!   writing zero resets;
//! - features are taken between DRIVER and FEATURES_OK, and FEATURES_OK stays clear unless they are
//!   a subset of what is offered that has VERSION_1;
//! - queues are set up between FEATURES_OK and DRIVER_OK; a queue becomes ready only with a size
//!   that is a power of two up to the maximum and with aligned rings that end below 2^64.

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use super::feature;

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

/// Bits of the status register (VIRTIO 1.2, section 2.1).
pub(super) mod status {
    pub(crate) const ACKNOWLEDGE: u32 = 1;
    pub(crate) const DRIVER: u32 = 2;
    pub(crate) const DRIVER_OK: u32 = 4;
    pub(crate) const FEATURES_OK: u32 = 8;
    pub(crate) const NEEDS_RESET: u32 = 64;
    pub(crate) const FAILED: u32 = 128;
}

/// What a write asks of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// Reset the device, then the registers.
    Reset,
    /// The driver is ready: hand the queues to the device.
    Activate,
    /// Tell the device that the queue of this number has buffers. The number is within bounds.
    Notify(u16),
    /// Clear these causes of the interrupt.
    Acknowledge(u32),
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
    offered: u64,
    accepted: u64,
    /// The driver accepted a feature above bit 63, where none is.
    accepted_beyond: bool,
    offered_select: u32,
    accepted_select: u32,
    status: u32,
    queue_select: u32,
    queues: Vec<QueueRegisters>,
}

#[derive(Clone, Copy, Debug)]
struct QueueRegisters {
    max: u16,
    size: u32,
    ready: bool,
    descriptors: u64,
    driver: u64,
    device: u64,
}

impl Registers {
    /// The registers of a device that offers `features` and has one queue per entry of
    /// `queue_sizes`.
    pub(super) fn new(device_id: u32, features: u64, queue_sizes: &[u16]) -> Self {
        Self {
            device_id,
            offered: features,
            accepted: 0,
            accepted_beyond: false,
            offered_select: 0,
            accepted_select: 0,
            status: 0,
            queue_select: 0,
            queues: queue_sizes.iter().map(|&max| QueueRegisters::new(max)).collect(),
        }
    }

    /// Back to the state after creation.
    pub(super) fn reset(&mut self) {
        self.accepted = 0;
        self.accepted_beyond = false;
        self.offered_select = 0;
        self.accepted_select = 0;
        self.status = 0;
        self.queue_select = 0;
        for queue in &mut self.queues {
            *queue = QueueRegisters::new(queue.max);
        }
    }

    /// The value of the register at offset `register`; zero if no readable register is there.
    pub(super) fn read(&self, register: u64, live: Live) -> u32 {
        match register {
            offset::MAGIC_VALUE => MAGIC,
            offset::VERSION => VERSION,
            offset::DEVICE_ID => self.device_id,
            offset::VENDOR_ID => VENDOR,
            offset::DEVICE_FEATURES => half(self.offered, self.offered_select),
            offset::QUEUE_NUM_MAX => self.selected().map_or(0, |queue| queue.max.into()),
            offset::QUEUE_READY => self.selected().is_some_and(|queue| queue.ready).into(),
            offset::INTERRUPT_STATUS => live.interrupt_cause,
            offset::STATUS if live.needs_reset => self.status | status::NEEDS_RESET,
            offset::STATUS => self.status,
            // No shared memory region: length and base read as all ones.
            offset::SHM_LEN_LOW..=offset::SHM_BASE_HIGH => u32::MAX,
            offset::CONFIG_GENERATION => live.config_generation,
            _ => 0,
        }
    }

    /// Writes `value` to the register at offset `register`. Returns what the transport has to do.
    pub(super) fn write(&mut self, register: u64, value: u32) -> Effect {
        match register {
            offset::DEVICE_FEATURES_SEL => self.offered_select = value,
            offset::DRIVER_FEATURES_SEL => self.accepted_select = value,
            offset::DRIVER_FEATURES => self.accept_features(value),
            offset::QUEUE_SEL => self.queue_select = value,
            offset::QUEUE_NOTIFY => return self.notify(value),
            offset::INTERRUPT_ACK => return Effect::Acknowledge(value),
            offset::STATUS => return self.write_status(value),
            _ => self.write_queue(register, value),
        }
        Effect::None
    }

    /// The features that the driver accepted; a subset of the offered ones once it is active.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Whether the driver is ready.
    pub(super) fn is_active(&self) -> bool {
        self.has(status::DRIVER_OK)
    }

    /// The queues as the driver set them up, `None` where it did not make them ready.
    pub(super) fn queues(&self) -> Vec<Option<Queue>> {
        let event_idx = self.accepted & feature::EVENT_IDX != 0;
        self.queues.iter().map(|queue| queue.build(event_idx)).collect()
    }

    fn has(&self, bits: u32) -> bool {
        self.status & bits == bits
    }

    fn selected(&self) -> Option<&QueueRegisters> {
        self.queues.get(usize::try_from(self.queue_select).ok()?)
    }

    fn accept_features(&mut self, value: u32) {
        if !self.has(status::DRIVER) || self.status & (status::FEATURES_OK | status::FAILED) != 0 {
            return;
        }
        match self.accepted_select {
            0 => self.accepted = self.accepted & !0xffff_ffff | u64::from(value),
            1 => self.accepted = self.accepted & 0xffff_ffff | u64::from(value) << 32,
            _ => self.accepted_beyond |= value != 0,
        }
    }

    fn notify(&self, value: u32) -> Effect {
        // Without NOTIFICATION_DATA the value is the queue's number.
        match u16::try_from(value) {
            Ok(queue) if usize::from(queue) < self.queues.len() && self.is_active() => Effect::Notify(queue),
            _ => Effect::None,
        }
    }

    fn write_status(&mut self, value: u32) -> Effect {
        if value == 0 {
            return Effect::Reset;
        }
        // A driver never clears a bit, and after FAILED nothing else counts.
        if value & self.status != self.status || self.has(status::FAILED) {
            return Effect::None;
        }
        if value & status::FAILED != 0 {
            self.status |= status::FAILED;
            return Effect::None;
        }
        let was_active = self.is_active();
        for step in [status::ACKNOWLEDGE, status::DRIVER, status::FEATURES_OK, status::DRIVER_OK] {
            if value & step == 0 || (step == status::FEATURES_OK && !self.features_fit()) {
                break;
            }
            self.status |= step;
        }
        if self.is_active() && !was_active { Effect::Activate } else { Effect::None }
    }

    fn features_fit(&self) -> bool {
        self.accepted & !self.offered == 0 && self.accepted & feature::VERSION_1 != 0 && !self.accepted_beyond
    }

    fn write_queue(&mut self, register: u64, value: u32) {
        if !self.has(status::FEATURES_OK) || self.status & (status::DRIVER_OK | status::FAILED) != 0 {
            return;
        }
        let Some(queue) =
            usize::try_from(self.queue_select).ok().and_then(|index| self.queues.get_mut(index))
        else {
            return;
        };
        if register == offset::QUEUE_READY {
            queue.ready = value == 1 && queue.is_sound();
            return;
        }
        if queue.ready {
            return;
        }
        match register {
            offset::QUEUE_NUM => queue.size = value,
            offset::QUEUE_DESC_LOW => set_low(&mut queue.descriptors, value),
            offset::QUEUE_DESC_HIGH => set_high(&mut queue.descriptors, value),
            offset::QUEUE_DRIVER_LOW => set_low(&mut queue.driver, value),
            offset::QUEUE_DRIVER_HIGH => set_high(&mut queue.driver, value),
            offset::QUEUE_DEVICE_LOW => set_low(&mut queue.device, value),
            offset::QUEUE_DEVICE_HIGH => set_high(&mut queue.device, value),
            _ => {}
        }
    }
}

impl QueueRegisters {
    fn new(max: u16) -> Self {
        Self { max, size: max.into(), ready: false, descriptors: 0, driver: 0, device: 0 }
    }

    /// Size and alignment are as VIRTIO 1.2, section 2.7 wants them, and no ring wraps around the
    /// address space.
    fn is_sound(&self) -> bool {
        let size = u64::from(self.size);
        let fits = |base: u64, align: u64, length: u64| {
            base.is_multiple_of(align) && base.checked_add(length).is_some()
        };
        self.size.is_power_of_two()
            && self.size <= u32::from(self.max)
            && fits(self.descriptors, 16, 16 * size)
            && fits(self.driver, 2, 6 + 2 * size)
            && fits(self.device, 4, 6 + 8 * size)
    }

    fn build(&self, event_idx: bool) -> Option<Queue> {
        if !self.ready {
            return None;
        }
        let mut queue = Queue::new(self.max).ok()?;
        queue.try_set_size(u16::try_from(self.size).ok()?).ok()?;
        queue.try_set_desc_table_address(GuestAddress(self.descriptors)).ok()?;
        queue.try_set_avail_ring_address(GuestAddress(self.driver)).ok()?;
        queue.try_set_used_ring_address(GuestAddress(self.device)).ok()?;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        Some(queue)
    }
}

fn half(value: u64, select: u32) -> u32 {
    let shifted = match select {
        0 => value & 0xffff_ffff,
        1 => value >> 32,
        _ => 0,
    };
    u32::try_from(shifted).expect("32 bits were left")
}

fn set_low(value: &mut u64, low: u32) {
    *value = *value & !0xffff_ffff | u64::from(low);
}

fn set_high(value: &mut u64, high: u32) {
    *value = *value & 0xffff_ffff | u64::from(high) << 32;
}

#[cfg(test)]
#[path = "registers_tests.rs"]
mod tests;
