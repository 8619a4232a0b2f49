//! The common configuration structure (VIRTIO 1.2, section 4.1.4.3), over [`Negotiation`]: values
//! in, effects out. An access of another width than the field's, or to no field, is ignored and
//! reads as zero.

use std::sync::Arc;

use super::super::negotiation::{Area, Effect, Half, Negotiation};
use super::messages::{Messages, NO_VECTOR};

/// Length of the structure, with the fields of features that are not offered.
pub(super) const LENGTH: u32 = 0x3c;

/// Offsets of the fields.
pub(in super::super) mod field {
    pub(crate) const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub(crate) const DEVICE_FEATURE: u64 = 0x04;
    pub(crate) const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub(crate) const DRIVER_FEATURE: u64 = 0x0c;
    pub(crate) const CONFIG_VECTOR: u64 = 0x10;
    pub(crate) const QUEUE_COUNT: u64 = 0x12;
    pub(crate) const STATUS: u64 = 0x14;
    pub(crate) const CONFIG_GENERATION: u64 = 0x15;
    pub(crate) const QUEUE_SELECT: u64 = 0x16;
    pub(crate) const QUEUE_SIZE: u64 = 0x18;
    pub(crate) const QUEUE_VECTOR: u64 = 0x1a;
    pub(crate) const QUEUE_ENABLE: u64 = 0x1c;
    pub(crate) const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub(crate) const QUEUE_DESC: u64 = 0x20;
    pub(crate) const QUEUE_DRIVER: u64 = 0x28;
    pub(crate) const QUEUE_DEVICE: u64 = 0x30;
    pub(crate) const QUEUE_NOTIFY_DATA: u64 = 0x38;
}

/// Values that the structure shows and that are kept elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Live {
    pub(super) needs_reset: bool,
    pub(super) config_generation: u32,
}

/// The structure of one device.
pub(super) struct CommonConfig {
    pub(super) negotiation: Negotiation,
    messages: Arc<Messages>,
}

impl CommonConfig {
    /// The structure of a device that offers `features`, has one queue per entry of `queue_sizes`,
    /// and interrupts by `messages`.
    pub(super) fn new(features: u64, queue_sizes: &[u16], messages: Arc<Messages>) -> Self {
        Self { negotiation: Negotiation::new(features, queue_sizes), messages }
    }

    /// The value of the field at `offset`, if it is `width` bytes wide; else zero.
    pub(super) fn read(&self, offset: u64, width: usize, live: Live) -> u32 {
        let negotiation = &self.negotiation;
        let queue = negotiation.queue();
        let (offered_select, accepted_select) = negotiation.selected_words();
        match (offset, width) {
            (field::DEVICE_FEATURE_SELECT, 4) => offered_select,
            (field::DEVICE_FEATURE, 4) => negotiation.offered_word(),
            (field::DRIVER_FEATURE_SELECT, 4) => accepted_select,
            (field::DRIVER_FEATURE, 4) => negotiation.accepted_word(),
            (field::CONFIG_VECTOR, 2) => self.messages.config_vector().into(),
            (field::QUEUE_COUNT, 2) => u32::try_from(negotiation.queue_count()).unwrap_or(0),
            (field::STATUS, 1) => negotiation.status(live.needs_reset),
            (field::CONFIG_GENERATION, 1) => live.config_generation & 0xff,
            (field::QUEUE_SELECT, 2) => negotiation.selected_queue(),
            // Zero says that there is no such queue.
            (field::QUEUE_SIZE, 2) => queue.map_or(0, |queue| queue.size()),
            (field::QUEUE_VECTOR, 2) => self.messages.queue_vector(negotiation.selected_queue()).into(),
            (field::QUEUE_ENABLE, 2) => queue.is_some_and(|queue| queue.is_ready()).into(),
            // Each queue is notified at an address of its own.
            (field::QUEUE_NOTIFY_OFF | field::QUEUE_NOTIFY_DATA, 2) if queue.is_some() => {
                negotiation.selected_queue()
            }
            (_, 4) => {
                let address = address_at(offset).zip(queue);
                address.map_or(0, |((area, half), queue)| half.of(queue.address(area)))
            }
            _ => 0,
        }
    }

    /// Writes `value` to the field at `offset`, if it is `width` bytes wide. Returns what the
    /// transport has to do.
    pub(super) fn write(&mut self, offset: u64, width: usize, value: u32) -> Effect {
        let negotiation = &mut self.negotiation;
        // Fields of two bytes have no other values.
        let vector = u16::try_from(value).unwrap_or(NO_VECTOR);
        match (offset, width) {
            (field::DEVICE_FEATURE_SELECT, 4) => negotiation.select_offered(value),
            (field::DRIVER_FEATURE_SELECT, 4) => negotiation.select_accepted(value),
            (field::DRIVER_FEATURE, 4) => negotiation.accept_features(value),
            (field::CONFIG_VECTOR, 2) => self.messages.set_config_vector(vector),
            (field::STATUS, 1) => return negotiation.write_status(value),
            (field::QUEUE_SELECT, 2) => negotiation.select_queue(value),
            (field::QUEUE_SIZE, 2) => negotiation.set_queue_size(value),
            (field::QUEUE_VECTOR, 2) => {
                let queue = negotiation.selected_queue();
                self.messages.set_queue_vector(queue, vector);
            }
            // A driver cannot take it back but by a reset (section 4.1.4.3.2).
            (field::QUEUE_ENABLE, 2) if value == 1 => negotiation.set_queue_ready(value),
            (_, 4) => {
                if let Some((area, half)) = address_at(offset) {
                    negotiation.set_queue_address(area, half, value);
                }
            }
            _ => {}
        }
        Effect::None
    }
}

/// The half of an address of a queue that is at `offset`.
fn address_at(offset: u64) -> Option<(Area, Half)> {
    let (area, base) = match offset & !7 {
        base @ field::QUEUE_DESC => (Area::Descriptors, base),
        base @ field::QUEUE_DRIVER => (Area::Driver, base),
        base @ field::QUEUE_DEVICE => (Area::Device, base),
        _ => return None,
    };
    match offset - base {
        0 => Some((area, Half::Low)),
        4 => Some((area, Half::High)),
        _ => None,
    }
}
