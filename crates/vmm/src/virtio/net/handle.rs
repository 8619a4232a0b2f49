use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use plimsoll_protocol::control::NetSettings;
use plimsoll_sys::{Event, lock};

/// Changes an interface while it runs. Clones are handles of the same interface. No call waits: the
/// interface's thread takes a change up.
#[derive(Clone)]
pub struct NetHandle {
    shared: Arc<Shared>,
    bell: Event,
}

/// What front, back and handles share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Settings that the interface's thread has not taken up.
    settings: Mutex<Option<NetSettings>>,
    /// The state of the link that the guest is shown.
    is_up: AtomicBool,
    filtered: AtomicU64,
}

impl NetHandle {
    /// A handle that leaves settings in `shared`, and signals `bell`.
    pub(super) fn new(shared: Arc<Shared>, bell: Event) -> Self {
        Self { shared, bell }
    }

    /// Sets what holds from now on. Packets that wait for a rate pass as soon as the new one lets
    /// them.
    pub fn set(&self, settings: NetSettings) {
        *lock(&self.shared.settings) = Some(settings);
        self.bell.signal();
    }

    /// Packets that were dropped because their source address was not the guest's.
    pub fn filtered(&self) -> u64 {
        self.shared.filtered.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Settings to begin with.
    pub(super) fn new(settings: NetSettings) -> Self {
        Self {
            settings: Mutex::new(Some(settings)),
            is_up: AtomicBool::new(true),
            filtered: AtomicU64::new(0),
        }
    }

    /// New settings, once.
    pub(super) fn take_settings(&self) -> Option<NetSettings> {
        lock(&self.settings).take()
    }

    /// Whether the guest is shown that the link is up.
    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::SeqCst)
    }

    /// Shows the guest the state of the link. Returns whether it is another than before.
    pub(super) fn show(&self, is_up: bool) -> bool {
        self.is_up.swap(is_up, Ordering::SeqCst) != is_up
    }

    /// Counts a packet that was dropped because of its source address.
    pub(super) fn count_filtered(&self) {
        self.filtered.fetch_add(1, Ordering::Relaxed);
    }
}
