//! Counts over windows of time.

use std::time::{Duration, Instant};

/// A count that begins anew with each window, and the count of the window before.
#[derive(Debug, Default)]
pub(crate) struct Windowed<T> {
    /// When the window under way began.
    since: Option<Instant>,
    pub(crate) now: T,
    pub(crate) before: T,
}

impl<T: Default> Windowed<T> {
    /// Begins a new window if the one under way has lasted for `length` at `now`.
    pub(crate) fn advance(&mut self, now: Instant, length: Duration) {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= length) {
            self.since = Some(now);
            self.before = std::mem::take(&mut self.now);
        }
    }
}
