//! The order of locks, and locks that check it.
//!
//! | rank, outermost first | guards | held for |
//! |---|---|---|
//! | [`EVICTION`] | where eviction has come to | one call of `page_out` |
//! | [`SCAN`] | the scanner's notes | one call of `scan`, `share` or `leave_frames` |
//! | [`HINTS`] | chunks to be scanned first | a look |
//! | [`CHUNK`] | a chunk's state, and all transitions of it | a transition, system calls included |
//! | [`STAGING`] | the chunk behind guest RAM where copies are put together | a copy and a move |
//! | [`STORE`] | the store of compressed pages | one operation on it |
//! | [`FRAMES`] | which pool of frames is in use | a look |
//! | [`FAILED_WRITES`] | content that the swap could not write | a look |
//! | [`SWAP_SCHEDULE`] | the swap's engine, and what is in flight | one turn of the swap |
//! | [`SWAP_QUEUE`] | what waits to be read or written | a look |
//! | [`SWAP_WORKER`] | tasks of the thread that does I/O without an io_uring | a look |
//! | [`SWAP_BOOK`] | the swap's slots | a look |
//! | [`SWAP_BUFFERS`] | free buffers | a look |
//! | [`PINS`] | how many pages are pinned | a look |
//! | [`PROBES`] | which chunks are probed, and where | a look |
//! | [`ACCOUNT`] | the account | arithmetic |
//!
//! A thread takes locks downwards only, and one of each rank; except that
//! [`Chunks::lock_all`](crate::page::Chunks::lock_all) takes all chunks, in order. So no threads
//! can wait for each other in a circle. Debug builds panic where a thread breaks the rule, whether
//! or not another thread is in its way. The model check, where shuttle finds such circles itself,
//! leaves that out.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError, lock};

/// A lock's place in the order: a greater one is taken later.
pub(crate) type Rank = u8;

pub(crate) const EVICTION: Rank = 0;
pub(crate) const SCAN: Rank = 1;
pub(crate) const HINTS: Rank = 2;
pub(crate) const CHUNK: Rank = 3;
pub(crate) const STAGING: Rank = 4;
pub(crate) const STORE: Rank = 5;
pub(crate) const FRAMES: Rank = 6;
pub(crate) const FAILED_WRITES: Rank = 7;
pub(crate) const SWAP_SCHEDULE: Rank = 8;
pub(crate) const SWAP_QUEUE: Rank = 9;
#[cfg_attr(all(test, feature = "model-check"), expect(dead_code, reason = "the model has another engine"))]
pub(crate) const SWAP_WORKER: Rank = 10;
pub(crate) const SWAP_BOOK: Rank = 11;
pub(crate) const SWAP_BUFFERS: Rank = 12;
pub(crate) const PINS: Rank = 13;
pub(crate) const PROBES: Rank = 14;
pub(crate) const ACCOUNT: Rank = 15;

/// A mutex with a place in the order of locks.
#[derive(Debug, Default)]
pub(crate) struct Lock<T, const RANK: Rank>(Mutex<T>);

/// A held [`Lock`].
pub(crate) struct Guard<'a, T, const RANK: Rank> {
    // Released before the rank is: fields are dropped in order.
    guard: MutexGuard<'a, T>,
    held: Held,
}

impl<T, const RANK: Rank> Lock<T, RANK> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Waits for the lock, also after a thread has panicked with it held.
    pub(crate) fn lock(&self) -> Guard<'_, T, RANK> {
        let held = Held::new(RANK);
        Guard { guard: lock(&self.0), held }
    }

    /// Takes the lock if it is free.
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T, RANK>> {
        let held = Held::new(RANK);
        match self.0.try_lock() {
            Ok(guard) => Some(Guard { guard, held }),
            Err(TryLockError::Poisoned(poisoned)) => Some(Guard { guard: poisoned.into_inner(), held }),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Takes several locks of one rank, which every thread that does so must name in the same
    /// order.
    pub(crate) fn lock_all(locks: &[Self]) -> Guards<'_, T> {
        let held = Held::new(RANK);
        Guards { guards: locks.iter().map(|each| lock(&each.0)).collect(), _held: held }
    }
}

impl<T, const RANK: Rank> Guard<'_, T, RANK> {
    /// Waits on `condvar`, with the lock released, until `condition` does not hold any more.
    pub(crate) fn wait_while(self, condvar: &Condvar, condition: impl FnMut(&mut T) -> bool) -> Self {
        let Self { guard, held } = self;
        let guard = condvar.wait_while(guard, condition).unwrap_or_else(PoisonError::into_inner);
        Self { guard, held }
    }

    /// The same, but for no longer than `timeout`.
    pub(crate) fn wait_timeout_while(
        self,
        condvar: &Condvar,
        timeout: Duration,
        condition: impl FnMut(&mut T) -> bool,
    ) -> Self {
        let Self { guard, held } = self;
        let waited = condvar.wait_timeout_while(guard, timeout, condition);
        Self { guard: waited.unwrap_or_else(PoisonError::into_inner).0, held }
    }
}

impl<T, const RANK: Rank> Deref for Guard<'_, T, RANK> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T, const RANK: Rank> DerefMut for Guard<'_, T, RANK> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// Several held locks of one rank.
pub(crate) struct Guards<'a, T> {
    guards: Vec<MutexGuard<'a, T>>,
    _held: Held,
}

impl<'a, T> Deref for Guards<'a, T> {
    type Target = [MutexGuard<'a, T>];

    fn deref(&self) -> &Self::Target {
        &self.guards
    }
}

impl<T> DerefMut for Guards<'_, T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.guards
    }
}

/// That this thread holds a lock of some rank. Costs nothing but in debug builds.
#[cfg(any(not(debug_assertions), all(test, feature = "model-check")))]
struct Held;

#[cfg(any(not(debug_assertions), all(test, feature = "model-check")))]
impl Held {
    fn new(_rank: Rank) -> Self {
        Self
    }
}

#[cfg(all(debug_assertions, not(all(test, feature = "model-check"))))]
use checked::Held;

#[cfg(all(debug_assertions, not(all(test, feature = "model-check"))))]
mod checked {
    use std::cell::Cell;

    use super::Rank;

    thread_local! {
        /// A bit for each rank of which this thread holds a lock.
        static HELD: Cell<u32> = const { Cell::new(0) };
    }

    /// That this thread holds a lock of some rank.
    pub(super) struct Held(Rank);

    impl Held {
        pub(super) fn new(rank: Rank) -> Self {
            HELD.with(|held| {
                let mask = held.get();
                assert!(
                    mask < 1 << rank,
                    "a lock of rank {rank} is taken while one of rank {} is held: lock.rs has the order",
                    mask.checked_ilog2().unwrap_or_default()
                );
                held.set(mask | 1 << rank);
            });
            Self(rank)
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            HELD.with(|held| held.set(held.get() & !(1 << self.0)));
        }
    }
}

#[cfg(all(test, debug_assertions, not(feature = "model-check")))]
mod tests;
