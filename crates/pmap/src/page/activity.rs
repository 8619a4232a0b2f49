use crate::sync::atomic::{AtomicU32, Ordering};

/// What is known of the use of a chunk; the idlest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Activity {
    /// The chunk, or a page of it, was not touched for a whole period.
    Idle,
    /// Nothing: neither the chunk nor a page of it was sampled since a fault.
    #[default]
    Unknown,
    /// The chunk, or a page of it, was touched while it was sampled; or a fault has made it large.
    Used,
}

/// Touches of samples, counted by the threads that serve faults.
#[derive(Debug, Default)]
pub(crate) struct Touches {
    chunks: AtomicU32,
    pages: AtomicU32,
    inside: AtomicU32,
}

impl Touches {
    pub(crate) fn clear(&self) {
        self.chunks.store(0, Ordering::Relaxed);
        self.pages.store(0, Ordering::Relaxed);
        self.inside.store(0, Ordering::Relaxed);
    }

    pub(crate) fn count_chunk(&self) {
        self.chunks.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_page(&self) {
        self.pages.fetch_add(1, Ordering::Relaxed);
    }

    /// A page of a probed chunk was touched.
    pub(crate) fn count_inside(&self) {
        self.inside.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn chunks(&self) -> u32 {
        self.chunks.load(Ordering::Relaxed)
    }

    pub(crate) fn pages(&self) -> u32 {
        self.pages.load(Ordering::Relaxed)
    }

    pub(crate) fn inside(&self) -> u32 {
        self.inside.load(Ordering::Relaxed)
    }
}
