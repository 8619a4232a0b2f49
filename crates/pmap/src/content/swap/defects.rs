//! The swap's slots with a deliberate defect: what `slots.rs` is in production.

use std::ops::{Deref, DerefMut};

use super::Completion;
use super::slots::{self, SwapSlot};

/// What a test does with each completion before the fault thread sees it.
pub(crate) type BeforeCompletion = std::sync::Arc<dyn Fn(&Completion) + Send + Sync>;

/// A test's look at completions.
#[derive(Default)]
pub(super) struct Probe(pub(super) std::sync::Mutex<Option<BeforeCompletion>>);

impl Probe {
    pub(super) fn see(&self, completions: &[Completion]) {
        // Unlocked again first: the probe takes locks at which the model check changes threads.
        let probe = self.0.lock().unwrap().clone();
        if let Some(probe) = probe {
            completions.iter().for_each(|completion| probe(completion));
        }
    }
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Probe")
    }
}

/// Slots that, on demand, are reused while I/O on them is in flight.
#[derive(Debug)]
pub(super) struct Slots {
    slots: slots::Slots,
    pub(super) early_reuse: bool,
}

impl Slots {
    pub(super) fn new(len: u32) -> Self {
        Self { slots: slots::Slots::new(len), early_reuse: false }
    }

    pub(super) fn free(&mut self, slot: SwapSlot) {
        if self.early_reuse { self.slots.put_back(slot) } else { self.slots.free(slot) }
    }
}

impl Deref for Slots {
    type Target = slots::Slots;

    fn deref(&self) -> &Self::Target {
        &self.slots
    }
}

impl DerefMut for Slots {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.slots
    }
}
