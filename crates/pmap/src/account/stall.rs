#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

/// Time that a VM was stalled for memory since its memory was made, in the terms of Linux's PSI.
///
/// A fault is stalled while it waits for a grant or for a read from the swap. Decompression is work
/// and no stall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalled {
    /// At least one fault was stalled, or the VM was held.
    pub some: Duration,
    /// As many faults were stalled as the VM has tasks, or the VM was held. Part of `some`.
    pub full: Duration,
}

/// The clock of [`Stalled`]. It reads the time only when the stall begins, ends or changes its
/// kind, and nothing is decided by it, so that the model check can run with it.
#[derive(Debug)]
pub(crate) struct StallClock {
    /// Stalled faults at which all of the VM stands still.
    tasks: u64,
    faults: u64,
    held: bool,
    past: Stalled,
    /// When the stall that lasts began, or last changed its kind.
    since: Option<(Instant, Kind)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Some,
    Full,
}

impl Default for StallClock {
    fn default() -> Self {
        Self { tasks: 1, faults: 0, held: false, past: Stalled::default(), since: None }
    }
}

impl StallClock {
    /// Notes that `faults` are stalled from now on.
    pub(crate) fn observe(&mut self, faults: u64) {
        self.faults = faults;
        self.update();
    }

    pub(crate) fn set_tasks(&mut self, tasks: u64) {
        self.tasks = tasks;
        self.update();
    }

    pub(crate) fn hold(&mut self, held: bool) {
        self.held = held;
        self.update();
    }

    fn update(&mut self) {
        let kind = match self.faults {
            _ if self.held => Some(Kind::Full),
            0 => None,
            faults if faults < self.tasks => Some(Kind::Some),
            _ => Some(Kind::Full),
        };
        if kind != self.since.map(|(_, kind)| kind) {
            let now = Instant::now();
            self.past = self.at(now);
            self.since = kind.map(|kind| (now, kind));
        }
    }

    /// Time stalled so far, the stall that lasts included.
    pub(crate) fn so_far(&self) -> Stalled {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Stalled {
        let mut stalled = self.past;
        if let Some((since, kind)) = self.since {
            let lasts = now.saturating_duration_since(since);
            stalled.some += lasts;
            if kind == Kind::Full {
                stalled.full += lasts;
            }
        }
        stalled
    }
}
