//! How a device interrupts its driver.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The driver's buffers were used.
pub const USED_BUFFER: u32 = 1;
/// The configuration changed, or the device needs a reset.
pub const CONFIG_CHANGE: u32 = 2;

/// A transport's way to the driver. Any thread calls it; no call waits for the guest.
pub(super) trait Signal: Send + Sync {
    /// Buffers of queue `queue` were used.
    fn used_buffer(&self, queue: usize);
    /// Configuration space has changed, or the device needs a reset.
    fn config_change(&self);
}

/// The device's end of its interrupt. Clones share it. Callable from any thread, never waits for
/// the guest.
///
/// The cause is set first and the signal given after: a driver that acknowledges between the two
/// finds the cause again or has seen the buffers already, so an edge-triggered line loses nothing.
#[derive(Clone)]
pub struct Interrupt {
    shared: Arc<Shared>,
}

struct Shared {
    cause: AtomicU32,
    needs_reset: AtomicBool,
    config_generation: AtomicU32,
    signal: Arc<dyn Signal>,
}

impl Interrupt {
    /// An interrupt with no cause.
    pub(super) fn new(signal: Arc<dyn Signal>) -> Self {
        let shared = Shared {
            cause: AtomicU32::new(0),
            needs_reset: AtomicBool::new(false),
            config_generation: AtomicU32::new(0),
            signal,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Buffers of queue `queue` were used.
    pub(super) fn used_buffer(&self, queue: usize) {
        self.shared.cause.fetch_or(USED_BUFFER, Ordering::SeqCst);
        self.shared.signal.used_buffer(queue);
    }

    /// Configuration space has changed.
    pub fn config_change(&self) {
        self.shared.config_generation.fetch_add(1, Ordering::SeqCst);
        self.signal_config();
    }

    /// The device stopped and wants to be reset (`DEVICE_NEEDS_RESET`).
    pub fn needs_reset(&self) {
        self.shared.needs_reset.store(true, Ordering::SeqCst);
        self.signal_config();
    }

    /// The causes that the driver has not acknowledged.
    pub(super) fn cause(&self) -> u32 {
        self.shared.cause.load(Ordering::SeqCst)
    }

    /// Whether the device wants to be reset.
    pub(super) fn is_reset_needed(&self) -> bool {
        self.shared.needs_reset.load(Ordering::SeqCst)
    }

    /// Counts changes of configuration space.
    pub(super) fn config_generation(&self) -> u32 {
        self.shared.config_generation.load(Ordering::SeqCst)
    }

    /// The driver acknowledges causes. Returns those that it had not acknowledged before.
    pub(super) fn acknowledge(&self, causes: u32) -> u32 {
        self.shared.cause.fetch_and(!causes, Ordering::SeqCst)
    }

    /// Clears all causes after a reset. The generation is kept, so a driver never takes two
    /// contents of configuration space for one.
    pub(super) fn reset(&self) {
        self.shared.needs_reset.store(false, Ordering::SeqCst);
        self.shared.cause.store(0, Ordering::SeqCst);
    }

    fn signal_config(&self) {
        self.shared.cause.fetch_or(CONFIG_CHANGE, Ordering::SeqCst);
        self.shared.signal.config_change();
    }
}
