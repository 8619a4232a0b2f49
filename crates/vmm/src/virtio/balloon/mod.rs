//! The memory balloon (VIRTIO 1.2, section 5.5), with statistics, deflate-on-oom and free page
//! reporting.
//!
//! Pages that the guest puts into the balloon or reports as free go to the pmap, which releases
//! them or keeps them. The balloon has a thread of its own. It never pins memory, so it gives
//! memory back while other devices wait for some.
//!
//! Poisoned pages: a guest that fills free pages with a pattern and expects to find it again says
//! so with a `poison_val`. The feature is offered, because a Linux guest that clears pages as it
//! frees them (`init_on_free`) reports none without it; its `poison_val` is zero, and zeros are
//! what a page given back reads as. With any other value the pages that the guest reports stay as
//! they are, since they would come back without the pattern. Pages in the balloon are not affected:
//! the guest fills them itself as it frees them after deflating.

mod back;
mod statistics;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use plimsoll_pmap::Pmap;
use plimsoll_protocol::control::GuestFacts;
use plimsoll_protocol::definition;
use plimsoll_sys::lock;
use plimsoll_units::Pages;

use super::interrupt::Interrupt;
use super::worker::Worker;
use super::{Activation, DeviceKind, NoticeSink, VirtioDevice, feature, read_config_bytes};
use back::BalloonBack;

/// Inflate, deflate, and those that the driver's features bring. Linux wants 32 places for free
/// page reporting.
const QUEUE_SIZES: &[u16] = &[128, 128, 128, 128];

/// Feature bits (VIRTIO 1.2, section 5.5.3).
mod bit {
    pub(super) const MUST_TELL_HOST: u64 = 1 << 0;
    pub(super) const STATS_VQ: u64 = 1 << 1;
    pub(super) const DEFLATE_ON_OOM: u64 = 1 << 2;
    pub(super) const PAGE_POISON: u64 = 1 << 4;
    pub(super) const PAGE_REPORTING: u64 = 1 << 5;
}

/// Offsets of `struct virtio_balloon_config`.
mod field {
    pub(super) const ACTUAL: u64 = 4;
    pub(super) const POISON_VAL: u64 = 12;
}

/// The front of the balloon.
pub struct Balloon {
    features: u64,
    handle: BalloonHandle,
    worker: Worker,
}

/// Sets the balloon's target and reports its state. Clones are handles of the same balloon. No call
/// waits.
#[derive(Clone)]
pub struct BalloonHandle {
    shared: Arc<Shared>,
}

/// What front, back and handles share.
struct Shared {
    size: Pages,
    /// Pages, as the configuration space has them.
    target: AtomicU32,
    actual: AtomicU32,
    poison: AtomicU32,
    driver: AtomicBool,
    ignored: AtomicU64,
    guest: Mutex<Option<GuestFacts>>,
    /// Set while the driver is ready.
    interrupt: Mutex<Option<Interrupt>>,
}

impl Balloon {
    /// A balloon for `memory` that offers what `offers` says, and its handle. `name` is for its
    /// thread and in notices.
    ///
    /// # Errors
    /// No file descriptor or no thread left.
    pub fn new(
        name: &str,
        offers: definition::Balloon,
        memory: &Arc<Pmap>,
        notices: NoticeSink,
    ) -> io::Result<(Self, BalloonHandle)> {
        let handle = BalloonHandle { shared: Arc::new(Shared::new(memory.stats().size)) };
        let back = BalloonBack::new(Arc::clone(memory), Arc::clone(&handle.shared));
        let worker = Worker::spawn(name.to_owned(), back, notices)?;
        Ok((Self { features: features(offers), handle: handle.clone(), worker }, handle))
    }
}

fn features(offers: definition::Balloon) -> u64 {
    let on = |wanted: bool, bits: u64| if wanted { bits } else { 0 };
    // Pages are given back a while after the guest has put them into the balloon. So the guest must
    // not use one again before its deflation was acknowledged: what it wrote would be lost.
    feature::COMMON
        | bit::MUST_TELL_HOST
        | bit::STATS_VQ
        | on(offers.deflate_on_oom, bit::DEFLATE_ON_OOM)
        | on(offers.free_page_reporting, bit::PAGE_REPORTING | bit::PAGE_POISON)
}

impl BalloonHandle {
    /// Asks the guest for a balloon of `target`, at most the guest's memory.
    pub fn set_target(&self, target: Pages) {
        let pages = u32::try_from(target.min(self.shared.size).0).unwrap_or(u32::MAX);
        if self.shared.target.swap(pages, Ordering::SeqCst) != pages
            && let Some(interrupt) = &*self.shared.interrupt()
        {
            interrupt.config_change();
        }
    }

    /// The size that the guest was last asked for.
    pub fn target(&self) -> Pages {
        Pages(self.shared.target.load(Ordering::SeqCst).into())
    }

    /// The balloon's size as the guest's driver last wrote it: a claim.
    pub fn actual(&self) -> Pages {
        Pages(self.shared.actual.load(Ordering::SeqCst).into())
    }

    /// Whether a driver has set the balloon up and not reset it since.
    pub fn has_driver(&self) -> bool {
        self.shared.driver.load(Ordering::SeqCst)
    }

    /// What the driver last reported of the guest: claims. `None` until its first report.
    pub fn guest(&self) -> Option<GuestFacts> {
        *self.shared.guest()
    }

    /// Pages that the guest has named since the start and that are not its memory.
    pub fn ignored(&self) -> Pages {
        Pages(self.shared.ignored.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn new(size: Pages) -> Self {
        Self {
            size,
            target: AtomicU32::new(0),
            actual: AtomicU32::new(0),
            poison: AtomicU32::new(0),
            driver: AtomicBool::new(false),
            ignored: AtomicU64::new(0),
            guest: Mutex::new(None),
            interrupt: Mutex::new(None),
        }
    }

    fn guest(&self) -> MutexGuard<'_, Option<GuestFacts>> {
        // A value is only ever replaced whole.
        lock(&self.guest)
    }

    fn interrupt(&self) -> MutexGuard<'_, Option<Interrupt>> {
        lock(&self.interrupt)
    }

    fn count_ignored(&self, pages: Pages) {
        let add = |before: u64| Some(before.saturating_add(pages.0));
        // Cannot fail: the closure always has a value.
        self.ignored.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok();
    }
}

impl VirtioDevice for Balloon {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Balloon
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn worker(&self) -> &Worker {
        &self.worker
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let shared = &self.handle.shared;
        let mut config = [0; 16];
        // Between them, free_page_hint_cmd_id: not offered.
        for (at, value) in [(0, &shared.target), (4, &shared.actual), (12, &shared.poison)] {
            config[at..at + 4].copy_from_slice(&value.load(Ordering::SeqCst).to_le_bytes());
        }
        read_config_bytes(&config, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let Ok(word) = <[u8; 4]>::try_from(data) else { return };
        let value = u32::from_le_bytes(word);
        match offset {
            field::ACTUAL => self.handle.shared.actual.store(value, Ordering::SeqCst),
            field::POISON_VAL => self.handle.shared.poison.store(value, Ordering::SeqCst),
            _ => {}
        }
    }

    fn activate(&mut self, activation: Activation) {
        *self.handle.shared.interrupt() = Some(activation.interrupt.clone());
        self.handle.shared.driver.store(true, Ordering::SeqCst);
        self.worker.start(activation);
    }

    fn reset(&mut self) {
        let shared = &self.handle.shared;
        *shared.interrupt() = None;
        shared.driver.store(false, Ordering::SeqCst);
        self.worker.stop();
        shared.actual.store(0, Ordering::SeqCst);
        shared.poison.store(0, Ordering::SeqCst);
        *shared.guest() = None;
    }
}
