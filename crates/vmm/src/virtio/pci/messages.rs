use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use super::super::interrupt::Signal;
use crate::pci::Msix;

/// No vector: nothing is sent for this reason (`VIRTIO_MSI_NO_VECTOR`).
pub(in super::super) const NO_VECTOR: u16 = 0xffff;

/// Which of a device's vectors stands for what.
pub(super) struct Messages {
    msix: Arc<Msix>,
    config: AtomicU16,
    queues: Vec<AtomicU16>,
}

impl Messages {
    /// For a device of `queues` queues. Nothing has a vector.
    pub(super) fn new(msix: Arc<Msix>, queues: usize) -> Self {
        let none = || AtomicU16::new(NO_VECTOR);
        Self { msix, config: none(), queues: (0..queues).map(|_| none()).collect() }
    }

    /// The vector for changes of the configuration.
    pub(super) fn config_vector(&self) -> u16 {
        self.config.load(Ordering::SeqCst)
    }

    /// The vector of queue `queue`.
    pub(super) fn queue_vector(&self, queue: u32) -> u16 {
        self.queue(queue).map_or(NO_VECTOR, |vector| vector.load(Ordering::SeqCst))
    }

    /// Sets the vector for changes of the configuration; to none if there is no such vector.
    pub(super) fn set_config_vector(&self, vector: u16) {
        self.config.store(self.known(vector), Ordering::SeqCst);
    }

    /// Sets the vector of queue `queue`, if there is such a queue.
    pub(super) fn set_queue_vector(&self, queue: u32, vector: u16) {
        if let Some(slot) = self.queue(queue) {
            slot.store(self.known(vector), Ordering::SeqCst);
        }
    }

    /// Nothing has a vector any more.
    pub(super) fn reset(&self) {
        self.config.store(NO_VECTOR, Ordering::SeqCst);
        self.queues.iter().for_each(|vector| vector.store(NO_VECTOR, Ordering::SeqCst));
    }

    fn queue(&self, queue: u32) -> Option<&AtomicU16> {
        self.queues.get(usize::try_from(queue).ok()?)
    }

    fn known(&self, vector: u16) -> u16 {
        if self.msix.has(vector) { vector } else { NO_VECTOR }
    }
}

impl Signal for Messages {
    fn used_buffer(&self, queue: usize) {
        if let Some(vector) = self.queues.get(queue) {
            self.msix.raise(vector.load(Ordering::SeqCst));
        }
    }

    fn config_change(&self) {
        self.msix.raise(self.config_vector());
    }
}
