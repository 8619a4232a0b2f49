use std::time::{Duration, Instant};

use plimsoll_protocol::sharing::WHOLE_CPU;

/// Says when a thread may work again that may use a part of a processor's time. What it used is
/// counted afterwards, so a long stretch of work is followed by a rest that is long in proportion.
pub(super) struct Pace {
    due: Instant,
    share: u16,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now, share: 0 }
    }

    /// Lets the thread use `share` ten-thousandths of a processor from now on. A rest that is under
    /// way becomes shorter or longer accordingly.
    pub(super) fn set(&mut self, share: u16, now: Instant) {
        let share = share.min(WHOLE_CPU);
        if share == self.share {
            return;
        }
        let left = self.due.saturating_duration_since(now);
        if share > 0 {
            self.due = now + left.saturating_mul(self.share.into()) / u32::from(share);
        }
        self.share = share;
    }

    /// Counts `time` of a processor for work that began at `start`.
    pub(super) fn used(&mut self, time: Duration, start: Instant) {
        // Without a share the thread works only when it must.
        if let Some(rest) = (time * u32::from(WHOLE_CPU)).checked_div(self.share.into()) {
            self.due = self.due.max(start) + rest;
        }
    }

    /// Lets the thread rest for at least `time`, whatever its share.
    pub(super) fn rest(&mut self, time: Duration, now: Instant) {
        self.due = self.due.max(now + time);
    }

    /// How long it is until the thread may work; `None`: it may not work at all.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        (self.share > 0).then(|| self.due.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn work_is_followed_by_rest_in_proportion() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(pace.wait(now), None, "nothing is allowed at first");
        pace.set(1000, now);
        assert_eq!(pace.wait(now), Some(Duration::ZERO));
        pace.used(5 * MS, now);
        assert_eq!(pace.wait(now + 5 * MS), Some(45 * MS));
        // After work that waited for other threads, the rest is no longer than for its processor
        // time.
        pace.used(5 * MS, now + 50 * MS);
        assert_eq!(pace.wait(now + 200 * MS), Some(Duration::ZERO));
        // Unused time is not saved up.
        pace.used(5 * MS, now + 1000 * MS);
        assert_eq!(pace.wait(now + 1000 * MS), Some(50 * MS));
    }

    #[test]
    fn a_new_share_counts_for_the_rest_that_is_under_way() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.set(10, now);
        pace.used(5 * MS, now);
        assert_eq!(pace.wait(now), Some(5000 * MS));
        pace.set(5000, now);
        assert_eq!(pace.wait(now), Some(10 * MS));
        pace.set(0, now);
        assert_eq!(pace.wait(now), None);
        pace.set(u16::MAX, now);
        assert!(pace.wait(now) <= Some(10 * MS));
    }
}
