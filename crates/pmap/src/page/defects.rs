//! The count of touches with a deliberate defect: what `activity.rs` has in production.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};

use super::activity;

/// Touches that, on demand, are not counted.
#[derive(Debug, Default)]
pub(crate) struct Touches {
    touches: activity::Touches,
    uncounted: AtomicBool,
}

impl Touches {
    pub(crate) fn set_uncounted(&self, uncounted: bool) {
        self.uncounted.store(uncounted, Ordering::SeqCst);
    }

    pub(crate) fn count_chunk(&self) {
        if !self.uncounted.load(Ordering::SeqCst) {
            self.touches.count_chunk();
        }
    }

    pub(crate) fn count_page(&self) {
        if !self.uncounted.load(Ordering::SeqCst) {
            self.touches.count_page();
        }
    }
}

impl Deref for Touches {
    type Target = activity::Touches;

    fn deref(&self) -> &Self::Target {
        &self.touches
    }
}
