use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of places, of which each is one session's.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    most: usize,
    taken: Arc<AtomicUsize>,
}

/// One place. It is free again once this is dropped, also by a thread that panics.
#[derive(Debug)]
pub(crate) struct Slot(Arc<AtomicUsize>);

impl Slots {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, taken: Arc::default() }
    }

    /// Takes a place; `None`: none is free.
    pub(crate) fn take(&self) -> Option<Slot> {
        // Given back at once where it is one too many.
        let slot = Slot(Arc::clone(&self.taken));
        (self.taken.fetch_add(1, Ordering::Relaxed) < self.most).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_after_its_session_has_panicked() {
        let slots = Slots::new(2);
        let first = slots.take().unwrap();
        let second = slots.take().unwrap();
        assert!(slots.take().is_none() && slots.take().is_none());
        let session = std::thread::spawn(move || {
            let _slot = second;
            panic!("as a session might");
        });
        assert!(session.join().is_err());
        let again = slots.take().unwrap();
        assert!(slots.take().is_none());
        drop((first, again));
        assert_eq!(slots.taken.load(Ordering::Relaxed), 0);
    }
}
