//! The locks and atomics at which this crate's threads meet: those of `std`, or shuttle's where the
//! model check decides which thread runs when.

#[cfg(all(test, feature = "model-check"))]
pub(crate) use shuttle::sync::*;
#[cfg(not(all(test, feature = "model-check")))]
pub(crate) use std::sync::*;

/// Locks `mutex`, also after a thread has panicked with it held: a defect, but one that must not
/// end the fault thread, and with it the whole VM.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
