//! What driver and device agree on before the device runs (VIRTIO 1.2, sections 2.1, 2.2 and 3.1),
//! as a pure state machine: values in, effects out. Each transport shows it in registers of its
//! own.
//!
//! The driver is hostile: a write that is out of order or out of bounds is ignored, and reads of
//! what does not exist give zero. In particular
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

/// Bits of the device's status (VIRTIO 1.2, section 2.1).
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
}

/// A part of a queue, each at an address of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Area {
    /// The descriptor table.
    Descriptors,
    /// The available ring.
    Driver,
    /// The used ring.
    Device,
}

/// A half of a number of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Low,
    High,
}

impl Half {
    /// This half of `value`.
    pub(super) fn of(self, value: u64) -> u32 {
        let shifted = match self {
            Self::Low => value & 0xffff_ffff,
            Self::High => value >> 32,
        };
        u32::try_from(shifted).expect("32 bits were left")
    }

    fn set(self, value: &mut u64, half: u32) {
        *value = match self {
            Self::Low => *value & !0xffff_ffff | u64::from(half),
            Self::High => *value & 0xffff_ffff | u64::from(half) << 32,
        };
    }

    /// The half that a feature selector names.
    fn selected(select: u32) -> Option<Self> {
        match select {
            0 => Some(Self::Low),
            1 => Some(Self::High),
            _ => None,
        }
    }
}

/// The state of a device's initialization.
pub(super) struct Negotiation {
    offered: u64,
    accepted: u64,
    /// The driver accepted a feature above bit 63, where none is.
    accepted_beyond: bool,
    offered_select: u32,
    accepted_select: u32,
    status: u32,
    queue_select: u32,
    queues: Vec<QueueSetup>,
}

/// A queue as its driver has set it up.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueSetup {
    max: u16,
    size: u32,
    ready: bool,
    descriptors: u64,
    driver: u64,
    device: u64,
}

impl Negotiation {
    /// The state of a device that offers `features` and has one queue per entry of `queue_sizes`.
    pub(super) fn new(features: u64, queue_sizes: &[u16]) -> Self {
        Self {
            offered: features,
            accepted: 0,
            accepted_beyond: false,
            offered_select: 0,
            accepted_select: 0,
            status: 0,
            queue_select: 0,
            queues: queue_sizes.iter().map(|&max| QueueSetup::new(max)).collect(),
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
            *queue = QueueSetup::new(queue.max);
        }
    }

    /// The word of the offered features that the driver looks at.
    pub(super) fn offered_word(&self) -> u32 {
        Half::selected(self.offered_select).map_or(0, |half| half.of(self.offered))
    }

    /// The word of the accepted features that the driver writes.
    pub(super) fn accepted_word(&self) -> u32 {
        Half::selected(self.accepted_select).map_or(0, |half| half.of(self.accepted))
    }

    /// The driver looks at word `word` of the offered features.
    pub(super) fn select_offered(&mut self, word: u32) {
        self.offered_select = word;
    }

    /// The driver writes word `word` of the accepted features.
    pub(super) fn select_accepted(&mut self, word: u32) {
        self.accepted_select = word;
    }

    /// The words that are looked at: of the offered features, then of the accepted ones.
    pub(super) fn selected_words(&self) -> (u32, u32) {
        (self.offered_select, self.accepted_select)
    }

    /// Takes the selected word of the features that the driver accepts.
    pub(super) fn accept_features(&mut self, value: u32) {
        if !self.has(status::DRIVER) || self.status & (status::FEATURES_OK | status::FAILED) != 0 {
            return;
        }
        match Half::selected(self.accepted_select) {
            Some(half) => half.set(&mut self.accepted, value),
            None => self.accepted_beyond |= value != 0,
        }
    }

    /// The features that the driver accepted; a subset of the offered ones once it is active.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// The status as its register shows it; `needs_reset`: the device has stopped.
    pub(super) fn status(&self, needs_reset: bool) -> u32 {
        self.status | if needs_reset { status::NEEDS_RESET } else { 0 }
    }

    /// Takes the driver's status. Returns what the transport has to do.
    pub(super) fn write_status(&mut self, value: u32) -> Effect {
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

    /// Whether the driver is ready.
    pub(super) fn is_active(&self) -> bool {
        self.has(status::DRIVER_OK)
    }

    /// The driver notifies the queue of this number, if there is one and the driver is ready.
    pub(super) fn notify(&self, queue: u32) -> Effect {
        match u16::try_from(queue) {
            Ok(queue) if usize::from(queue) < self.queues.len() && self.is_active() => Effect::Notify(queue),
            _ => Effect::None,
        }
    }

    /// The driver looks at queue `queue`, which need not exist.
    pub(super) fn select_queue(&mut self, queue: u32) {
        self.queue_select = queue;
    }

    /// The number of the selected queue, which need not exist.
    pub(super) fn selected_queue(&self) -> u32 {
        self.queue_select
    }

    /// The selected queue, if it exists.
    pub(super) fn queue(&self) -> Option<&QueueSetup> {
        self.queues.get(usize::try_from(self.queue_select).ok()?)
    }

    /// Sets the selected queue's size.
    pub(super) fn set_queue_size(&mut self, size: u32) {
        if let Some(queue) = self.changeable_queue() {
            queue.size = size;
        }
    }

    /// Sets half of an address of the selected queue.
    pub(super) fn set_queue_address(&mut self, area: Area, half: Half, value: u32) {
        let Some(queue) = self.changeable_queue() else { return };
        let address = match area {
            Area::Descriptors => &mut queue.descriptors,
            Area::Driver => &mut queue.driver,
            Area::Device => &mut queue.device,
        };
        half.set(address, value);
    }

    /// Makes the selected queue ready with `value` 1, and takes that back with another.
    pub(super) fn set_queue_ready(&mut self, value: u32) {
        if let Some(queue) = self.queue_in_setup() {
            queue.ready = value == 1 && queue.is_sound();
        }
    }

    /// The number of queues.
    pub(super) fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// The queues as the driver set them up, `None` where it did not make them ready.
    pub(super) fn queues(&self) -> Vec<Option<Queue>> {
        let event_idx = self.accepted & feature::EVENT_IDX != 0;
        self.queues.iter().map(|queue| queue.build(event_idx)).collect()
    }

    fn has(&self, bits: u32) -> bool {
        self.status & bits == bits
    }

    fn features_fit(&self) -> bool {
        self.accepted & !self.offered == 0 && self.accepted & feature::VERSION_1 != 0 && !self.accepted_beyond
    }

    /// The selected queue, while queues are set up.
    fn queue_in_setup(&mut self) -> Option<&mut QueueSetup> {
        if !self.has(status::FEATURES_OK) || self.status & (status::DRIVER_OK | status::FAILED) != 0 {
            return None;
        }
        self.queues.get_mut(usize::try_from(self.queue_select).ok()?)
    }

    /// The same, unless it is ready.
    fn changeable_queue(&mut self) -> Option<&mut QueueSetup> {
        self.queue_in_setup().filter(|queue| !queue.ready)
    }
}

impl QueueSetup {
    fn new(max: u16) -> Self {
        Self { max, size: max.into(), ready: false, descriptors: 0, driver: 0, device: 0 }
    }

    /// The largest size.
    pub(super) fn max(self) -> u16 {
        self.max
    }

    /// The size that the driver has chosen, which need not be a possible one.
    pub(super) fn size(self) -> u32 {
        self.size
    }

    /// Whether the driver has set it up.
    pub(super) fn is_ready(self) -> bool {
        self.ready
    }

    /// The address of a part of it.
    pub(super) fn address(self, area: Area) -> u64 {
        match area {
            Area::Descriptors => self.descriptors,
            Area::Driver => self.driver,
            Area::Device => self.device,
        }
    }

    /// Size and alignment are as VIRTIO 1.2, section 2.7 wants them, and no ring wraps around the
    /// address space.
    fn is_sound(self) -> bool {
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

    fn build(self, event_idx: bool) -> Option<Queue> {
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
