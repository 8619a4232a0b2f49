//! How long the turns of the daemon's loop take.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use plimsoll_protocol::status::TurnStatus;

/// Turns are judged together for this long: long enough for a 99th percentile on a quiet host, and
/// short enough that an operator sees a burden while it lasts.
const WINDOW: Duration = Duration::from_secs(10);
/// Longest turn that is told apart, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;
/// Digits that are kept: figures are off by a percent at most, and a window takes some 20 KiB.
const DIGITS: u8 = 2;

/// A turn takes no more messages once it has taken this long. Longer, and costly messages hold up
/// everything else; shorter, and VMs that wait are looked at more often.
const LONG_ENOUGH: Duration = Duration::from_millis(1);

/// What one turn may still take.
#[derive(Debug)]
pub(crate) struct TurnBudget {
    until: Instant,
    messages: usize,
}

impl TurnBudget {
    /// The budget of a turn that began at `begin` and takes at most this many messages.
    pub(crate) fn new(begin: Instant, messages: usize) -> Self {
        Self { until: begin + LONG_ENOUGH, messages }
    }

    /// Whether the turn may take one more message now that it has taken one.
    pub(crate) fn is_left(&mut self, now: Instant) -> bool {
        self.messages = self.messages.saturating_sub(1);
        self.messages > 0 && now < self.until
    }
}

/// The turns of the window under way.
#[derive(Debug)]
pub(crate) struct Turns {
    times: Histogram<u32>,
    since: Instant,
}

impl Turns {
    pub(crate) fn new(now: Instant) -> Self {
        let times = Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("these bounds are possible");
        Self { times, since: now }
    }

    /// Counts a turn from `begin` to `end`. Returns the figures of a window that ends with it.
    pub(crate) fn took(&mut self, begin: Instant, end: Instant) -> Option<TurnStatus> {
        let time = end.saturating_duration_since(begin).as_nanos();
        self.times.saturating_record(u64::try_from(time).unwrap_or(LONGEST));
        if end.saturating_duration_since(self.since) < WINDOW {
            return None;
        }
        let micros = |nanos: u64| nanos.div_ceil(1000);
        let status = TurnStatus {
            count: self.times.len(),
            median_us: micros(self.times.value_at_quantile(0.5)),
            p99_us: micros(self.times.value_at_quantile(0.99)),
            longest_us: micros(self.times.max()),
        };
        self.times.clear();
        self.since = end;
        Some(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ends_after_some_messages_or_some_time() {
        let begin = Instant::now();
        let taken = |each: Duration| {
            let (mut budget, mut now, mut taken) = (TurnBudget::new(begin, 256), begin, 0);
            loop {
                (now, taken) = (now + each, taken + 1);
                if !budget.is_left(now) {
                    return taken;
                }
            }
        };
        assert_eq!(taken(Duration::from_micros(1)), 256);
        assert_eq!(taken(Duration::from_micros(100)), 10, "costly messages");
        assert_eq!(taken(Duration::from_secs(1)), 1);
    }

    #[test]
    fn a_window_tells_its_middle_its_tail_and_its_longest_turn_and_forgets_them() {
        let begin = Instant::now();
        let mut turns = Turns::new(begin);
        let mut turn = |at: Duration, takes: Duration| turns.took(begin + at, begin + at + takes);
        for n in 0..98 {
            assert_eq!(turn(Duration::from_millis(n), Duration::from_micros(100)), None);
        }
        assert_eq!(turn(Duration::from_secs(1), Duration::from_millis(3)), None);
        let status = turn(WINDOW, Duration::from_secs(100)).unwrap();
        assert_eq!(status.count, 100);
        for (found, expected) in
            [(status.median_us, 100), (status.p99_us, 3000), (status.longest_us, 60_000_000)]
        {
            assert!(found.abs_diff(expected) <= expected / 50, "{status:?}");
        }
        let end = WINDOW + Duration::from_secs(100);
        assert_eq!(turn(end + WINDOW, Duration::ZERO).unwrap().count, 1);
    }
}
