use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use plimsoll_protocol::control::RateLimit;
use plimsoll_sys::{Event, lock};

/// Changes a disk while it runs. Clones are handles of the same disk. No call waits: the disk's
/// thread takes a change up.
#[derive(Clone)]
pub struct BlockHandle {
    shared: Arc<Shared>,
    bell: Event,
}

/// What front, back and handles share.
pub(super) struct Shared {
    /// Sectors that the guest is shown.
    sectors: AtomicU64,
    /// Wishes that the disk's thread has not taken up.
    rate: Mutex<Option<RateLimit>>,
    growths: Mutex<Vec<Growth>>,
}

/// A wish for a longer disk.
pub(super) struct Growth {
    /// Bytes that it is to have.
    pub(super) size: u64,
    /// Takes the bytes that the guest has been told of, or why nothing has changed.
    pub(super) done: Box<dyn FnOnce(Result<u64, String>) + Send>,
}

impl BlockHandle {
    /// A handle that leaves its wishes in `shared`, and signals `bell`.
    pub(super) fn new(shared: Arc<Shared>, bell: Event) -> Self {
        Self { shared, bell }
    }

    /// Sets how fast the disk may be from now on. Requests that wait for the rate before begin as
    /// soon as the new one lets them.
    pub fn set_rate(&self, rate: RateLimit) {
        *lock(&self.shared.rate) = Some(rate);
        self.bell.signal();
    }

    /// Shows the guest that the disk has `size` bytes. A raw disk's file has grown before; an image
    /// grows now. `done` takes the bytes that the guest has been told of, or why nothing has
    /// changed. The disk's thread calls it.
    pub fn grow(&self, size: u64, done: impl FnOnce(Result<u64, String>) + Send + 'static) {
        lock(&self.shared.growths).push(Growth { size, done: Box::new(done) });
        self.bell.signal();
    }
}

impl Shared {
    /// Of a disk of `sectors`, with a limit to begin with.
    pub(super) fn new(sectors: u64, rate: RateLimit) -> Self {
        let (sectors, rate) = (AtomicU64::new(sectors), Mutex::new(Some(rate)));
        Self { sectors, rate, growths: Mutex::default() }
    }

    /// Sectors that the guest is shown.
    pub(super) fn sectors(&self) -> u64 {
        self.sectors.load(Ordering::SeqCst)
    }

    /// Shows the guest a disk of `sectors`. Returns whether that is another size than before.
    pub(super) fn show(&self, sectors: u64) -> bool {
        self.sectors.swap(sectors, Ordering::SeqCst) != sectors
    }

    /// A new limit, once.
    pub(super) fn take_rate(&self) -> Option<RateLimit> {
        lock(&self.rate).take()
    }

    /// Wishes for a longer disk, each once.
    pub(super) fn take_growths(&self) -> Vec<Growth> {
        std::mem::take(&mut lock(&self.growths))
    }
}
