use std::sync::Arc;
use std::time::{Duration, Instant};

use super::NoticeSink;

/// Shortest time between two notices of one kind. A guest can cause them in a loop, by breaking its
/// queue and resetting the device for example. Shorter, and it floods the operator's log; longer,
/// and the operator misses that it goes on.
const PERIOD: Duration = Duration::from_secs(60);

/// Notices of one kind about one device, at most one in [`PERIOD`].
pub(super) struct Notices {
    name: String,
    sink: NoticeSink,
    last: Option<Instant>,
    suppressed: u64,
}

impl Notices {
    /// Notices about the device `name`, which go to `sink`.
    pub(super) fn new(name: &str, sink: NoticeSink) -> Self {
        Self { name: name.to_owned(), sink, last: None, suppressed: 0 }
    }

    /// Notices of another kind about the same device: these suppress none of them.
    pub(super) fn of_another_kind(&self) -> Self {
        Self::new(&self.name, Arc::clone(&self.sink))
    }

    /// Tells `what` has happened, or counts it.
    pub(super) fn tell(&mut self, what: &str) {
        if self.last.is_some_and(|last| last.elapsed() < PERIOD) {
            self.suppressed += 1;
            return;
        }
        let again = match self.suppressed {
            0 => String::new(),
            count => format!("; {count} more since the last notice"),
        };
        (self.sink)(format!("device {}: {what}{again}", self.name));
        self.last = Some(Instant::now());
        self.suppressed = 0;
    }
}
