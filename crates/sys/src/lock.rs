//! Locks whose holders never leave the data half changed.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`, also after a thread has panicked while it held the lock.
///
/// For data that is whole at every step, so that what the panicked thread left can be used. A
/// second panic would only spread the first defect to other threads.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_outlives_a_panic_of_its_holder() {
        let mutex = Mutex::new(1);
        let holder = std::thread::scope(|scope| {
            let panic = || {
                *lock(&mutex) = 2;
                let _held = lock(&mutex);
                panic!("a test");
            };
            scope.spawn(panic).join()
        });
        assert!(holder.is_err() && mutex.is_poisoned());
        assert_eq!(*lock(&mutex), 2);
    }
}
