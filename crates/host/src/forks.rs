//! Tests that hold locks on open files, apart from tests that start programs.
//!
//! Until a program that starts has executed, it holds copies of its parent's descriptors, and with
//! them their locks. Tests share one process, so a lock that one test has dropped could still be
//! held for a moment by the program of another.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keeps other tests that call this waiting for as long as the guard lives.
pub(crate) fn apart() -> MutexGuard<'static, ()> {
    static APART: Mutex<()> = Mutex::new(());
    // A test that failed has ended all the same.
    APART.lock().unwrap_or_else(PoisonError::into_inner)
}
