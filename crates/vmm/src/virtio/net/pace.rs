use std::time::Instant;

use plimsoll_protocol::control::RateLimit;

use super::super::rate::Rate;

/// The rate of one direction.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// `None`: there is no limit, and no clock is read.
    rate: Option<Rate>,
    due: Option<Instant>,
}

impl Pace {
    /// Whether a packet may pass now. If not, [`Pace::due`] says when.
    pub(super) fn may_pass(&mut self) -> bool {
        self.due = self.rate.as_ref().and_then(|rate| rate.wait(Instant::now()));
        self.due.is_none()
    }

    /// A packet of `length` bytes passes.
    pub(super) fn passes(&mut self, length: usize) {
        if let Some(rate) = &mut self.rate {
            rate.begin(length as u64, Instant::now());
        }
    }

    /// When the next packet may pass, if the last look at it found that it has to wait.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Holds to `limit` from now on. The next look says when the next packet may pass.
    pub(super) fn change(&mut self, limit: RateLimit) {
        self.rate = Rate::changed(self.rate.take(), limit, Instant::now());
        self.due = None;
    }

    /// Waits for nothing any more.
    pub(super) fn rest(&mut self) {
        self.due = None;
    }
}
