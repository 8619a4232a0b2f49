//! Where the content of pages is that is not in guest memory: the store of compressed pages, the
//! swap, and frames that other VMs have too.
//!
//! Nothing here knows page states. A [`Handle`], a [`SwapSlot`] and a frame number are all that a
//! page's state keeps of its content.

mod frames;
mod store;
#[cfg_attr(
    all(test, feature = "model-check"),
    expect(dead_code, reason = "the model's disk needs less, and the swap's own tests are left out")
)]
pub(crate) mod swap;

use plimsoll_units::Pages;

pub use self::frames::{Found, FramePool, FrameSource, MOST_OFFERED};
pub(crate) use self::frames::{Frames, MAPPINGS_OF_RUN, Pool, most_for_short_runs};
pub(crate) use self::store::{Handle, MOST_PACKED, Store, pack};
pub use self::swap::SwapSpace;
pub(crate) use self::swap::{Buffer, Completion, Read, Swap, SwapSlot, Written};
use crate::account::Ledger;
use crate::address::PAGE;
use crate::error::Error;
use crate::lock::{FAILED_WRITES, Lock, STORE};
use crate::sync::atomic::{AtomicBool, Ordering};

/// The store and the swap of one VM.
pub(crate) struct Content {
    store: Lock<Store, STORE>,
    swap: Option<Swap>,
    /// Writes to the swap that failed: they hold the content of their pages.
    failed_writes: Lock<Vec<Written>, FAILED_WRITES>,
    swap_failed: AtomicBool,
}

impl Content {
    /// A store of at most `store` pages, and a swap where there is space for one.
    pub(crate) fn new(store: Pages, swap: Option<SwapSpace>) -> Result<Self, Error> {
        let size = store.bytes();
        let store = Store::new(store).map_err(|source| Error::Map { size, source })?;
        let swap = swap.map(Swap::new).transpose().map_err(|source| Error::Swap { source })?;
        Ok(Self {
            store: Lock::new(store),
            swap,
            failed_writes: Lock::default(),
            swap_failed: AtomicBool::new(false),
        })
    }

    /// Works on the store, and charges what it then occupies. `freed` pages that the caller has
    /// given up are uncharged in the same step.
    pub(crate) fn in_store<T>(&self, ledger: &Ledger, freed: Pages, work: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = self.store.lock();
        let before = store.pages();
        let result = work(&mut store);
        ledger.account().store_changed(before, store.pages(), freed);
        result
    }

    /// Whether `count` more pages fit into the store, however little they shrink.
    pub(crate) fn store_has_room_for(&self, count: usize) -> bool {
        self.store.lock().room_for(count)
    }

    /// The page that has been in the store for the longest time, and its owner.
    pub(crate) fn oldest_in_store(&self) -> Option<(Handle, u64)> {
        self.store.lock().oldest()
    }

    /// Unpacks a page of the store.
    pub(crate) fn unpack(&self, handle: Handle, page: &mut [u8; PAGE]) {
        self.store.lock().read(handle, page);
    }

    pub(crate) fn swap(&self) -> Option<&Swap> {
        self.swap.as_ref()
    }

    /// The swap, while it takes pages.
    pub(crate) fn usable_swap(&self) -> Option<&Swap> {
        self.swap.as_ref().filter(|_| !self.swap_failed())
    }

    /// Whether the swap could not be written, so that nothing is swapped out until a reset.
    pub(crate) fn swap_failed(&self) -> bool {
        self.swap_failed.load(Ordering::Relaxed)
    }

    /// Has pages swapped out again after a failure.
    pub(crate) fn retry_swap(&self) {
        self.swap_failed.store(false, Ordering::Relaxed);
    }

    /// Keeps the content of a page that could not be written. True for the first since a reset.
    pub(crate) fn keep_failed_write(&self, written: Written) -> bool {
        self.failed_writes.lock().push(written);
        !self.swap_failed.swap(true, Ordering::Relaxed)
    }

    /// Gives up a page's place in the swap.
    pub(crate) fn free_slot(&self, slot: SwapSlot) {
        self.failed_writes.lock().retain(|written| written.slot != slot);
        if let Some(swap) = &self.swap {
            swap.free(slot);
        }
    }
}

#[cfg(all(test, not(feature = "model-check")))]
impl Content {
    /// Machine pages that the store occupies.
    pub(crate) fn store_pages(&self) -> Pages {
        self.store.lock().pages()
    }
}
