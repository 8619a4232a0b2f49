//! How a device interrupts its driver.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// The driver's buffers were used.
pub const USED_BUFFER: u32 = 1;
/// The configuration changed, or the device needs a reset.
pub const CONFIG_CHANGE: u32 = 2;

/// The device's end of its interrupt. Clones share it. Callable from any thread, never waits.
///
/// The cause is set first and the line pulsed after: a driver that acknowledges between the two
/// finds the cause again or has seen the buffers already, so an edge-triggered line loses nothing.
#[derive(Clone)]
pub struct Interrupt {
    shared: Arc<Shared>,
}

struct Shared {
    cause: AtomicU32,
    needs_reset: AtomicBool,
    config_generation: AtomicU32,
    line: EventFd,
}

impl Interrupt {
    /// An interrupt with no cause.
    ///
    /// # Errors
    /// No file descriptor left for the eventfd.
    pub fn new() -> io::Result<Self> {
        let shared = Shared {
            cause: AtomicU32::new(0),
            needs_reset: AtomicBool::new(false),
            config_generation: AtomicU32::new(0),
            line: EventFd::new(EFD_NONBLOCK)?,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The eventfd that KVM turns into an interrupt (irqfd, edge-triggered).
    pub fn line(&self) -> &EventFd {
        &self.shared.line
    }

    /// Buffers were used.
    pub fn used_buffer(&self) {
        self.raise(USED_BUFFER);
    }

    /// Configuration space has changed.
    pub fn config_change(&self) {
        self.shared.config_generation.fetch_add(1, Ordering::SeqCst);
        self.raise(CONFIG_CHANGE);
    }

    /// The device stopped and wants to be reset (`DEVICE_NEEDS_RESET`).
    pub fn needs_reset(&self) {
        self.shared.needs_reset.store(true, Ordering::SeqCst);
        self.raise(CONFIG_CHANGE);
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

    /// The driver acknowledges causes.
    pub(super) fn acknowledge(&self, causes: u32) {
        self.shared.cause.fetch_and(!causes, Ordering::SeqCst);
    }

    /// Clears all causes after a reset. The generation is kept, so a driver never takes two
    /// contents of configuration space for one.
    pub(super) fn reset(&self) {
        self.shared.needs_reset.store(false, Ordering::SeqCst);
        self.shared.cause.store(0, Ordering::SeqCst);
    }

    fn raise(&self, cause: u32) {
        self.shared.cause.fetch_or(cause, Ordering::SeqCst);
        // Fails only when the counter is full, and then the line is pulsed anyway.
        self.shared.line.write(1).ok();
    }
}
