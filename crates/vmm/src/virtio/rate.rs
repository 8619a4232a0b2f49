use std::time::{Duration, Instant};

use plimsoll_protocol::control::RateLimit;

/// Holds a device to a rate of operations and bytes.
///
/// Each of the two limits is a token bucket that fills at its rate, up to the burst. An operation
/// may begin as long as its buckets are not empty, and takes what it costs even if that is more
/// than there is. So operations of any size pass, and on average none passes too early.
#[derive(Debug)]
pub(super) struct Rate {
    operations: Option<Bucket>,
    bytes: Option<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    per_second: f64,
    /// The most that it holds.
    burst: f64,
    /// Below zero it is in debt.
    level: f64,
    at: Instant,
}

impl Rate {
    /// The rate of `limit` from `now` on, in the place of `before`; `None`: there is no limit. What
    /// was begun under the rate before is not forgotten, and is waited for no longer than under
    /// either of the two. Buckets that are new are full.
    pub(super) fn changed(before: Option<Self>, limit: RateLimit, now: Instant) -> Option<Self> {
        let (operations, bytes) = before.map_or((None, None), |rate| (rate.operations, rate.bytes));
        let burst = limit.burst.duration();
        let bucket = |before: Option<Bucket>, per_second: Option<u64>| {
            per_second.map(|per_second| Bucket::changed(before, per_second, burst, now))
        };
        let operations = bucket(operations, limit.operations);
        let bytes = bucket(bytes, limit.bandwidth.map(|bytes| bytes.0));
        (operations.is_some() || bytes.is_some()).then_some(Self { operations, bytes })
    }

    /// When the next operation may begin; `None`: at once.
    pub(super) fn wait(&self, now: Instant) -> Option<Instant> {
        self.buckets().filter_map(|bucket| bucket.wait(now)).max()
    }

    /// An operation that moves `bytes` begins at `now`.
    pub(super) fn begin(&mut self, bytes: u64, now: Instant) {
        self.begin_all(1, bytes, now);
    }

    /// This many operations, which move `bytes` together, begin at `now`.
    pub(super) fn begin_all(&mut self, count: u64, bytes: u64, now: Instant) {
        if let Some(operations) = &mut self.operations {
            operations.take(count, now);
        }
        if let Some(bucket) = &mut self.bytes {
            bucket.take(bytes, now);
        }
    }

    fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.operations.iter().chain(&self.bytes)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate that is off by less than a millionth")]
impl Bucket {
    /// A bucket that fills at `per_second`, in the place of `before`; without one it is full.
    fn changed(before: Option<Self>, per_second: u64, burst: Duration, now: Instant) -> Self {
        let per_second = per_second.max(1) as f64;
        let burst = per_second * burst.as_secs_f64();
        let level = before.map_or(burst, |before| {
            let level = before.level(now);
            // A debt is paid off at the faster of the two rates.
            if level < 0.0 { level.max(level * per_second / before.per_second) } else { level }
        });
        Self { per_second, burst, level: level.min(burst), at: now }
    }

    fn level(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.level + elapsed * self.per_second).min(self.burst)
    }

    fn wait(&self, now: Instant) -> Option<Instant> {
        let level = self.level(now);
        // No later than an hour from now, whatever it owes: what a device may begin is bounded.
        let seconds = (-level / self.per_second).clamp(0.0, 3600.0);
        (level <= 0.0).then(|| now + Duration::from_secs_f64(seconds) + Duration::from_micros(1))
    }

    fn take(&mut self, n: u64, now: Instant) {
        self.level = self.level(now) - n as f64;
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_units::Bytes;

    use super::*;

    /// Begins operations of `bytes` as soon as they may begin, for `time`; returns how many.
    fn run(limit: RateLimit, bytes: u64, time: Duration) -> u64 {
        let begin = Instant::now();
        let (mut rate, mut now, mut count) = (Rate::changed(None, limit, begin).unwrap(), begin, 0);
        while now < begin + time {
            match rate.wait(now) {
                Some(later) => now = later,
                None => {
                    rate.begin(bytes, now);
                    count += 1;
                }
            }
        }
        count
    }

    fn limit(operations: Option<u64>, bandwidth: Option<u64>) -> RateLimit {
        RateLimit { operations, bandwidth: bandwidth.map(Bytes), ..RateLimit::default() }
    }

    #[test]
    fn a_device_keeps_to_its_rate_whatever_the_size_of_operations() {
        let time = Duration::from_secs(10);
        // 10 s and the burst of a tenth.
        assert!((1010..=1012).contains(&run(limit(Some(100), None), 1 << 30, time)));
        assert!((2525..=2530).contains(&run(limit(None, Some(1 << 20)), 4096 + 96, time)));
        // An operation of a megabyte waits for no full bucket, and is paid for afterwards.
        assert!((10..=11).contains(&run(limit(None, Some(1 << 20)), 1 << 20, time)));
        assert!((50..=51).contains(&run(limit(Some(5), Some(1 << 30)), 4096, time)));
    }

    #[test]
    fn a_rest_is_made_up_for_by_the_burst_and_no_more() {
        let burst = "2s".parse().unwrap();
        let limit = RateLimit { burst, ..limit(Some(100), None) };
        assert!((1200..=1202).contains(&run(limit, 0, Duration::from_secs(10))));
        let begin = Instant::now();
        let mut rate = Rate::changed(None, limit, begin).unwrap();
        // However long the rest.
        let late = begin + Duration::from_secs(3600);
        for _ in 0..200 {
            assert_eq!(rate.wait(late), None);
            rate.begin(0, late);
        }
        assert!(rate.wait(late).is_some());
    }

    #[test]
    fn without_a_limit_there_is_no_rate_and_with_one_the_other_does_not_wait() {
        let now = Instant::now();
        assert!(Rate::changed(None, RateLimit::default(), now).is_none());
        let mut rate = Rate::changed(None, limit(Some(100), None), now).unwrap();
        rate.begin(u64::MAX, now);
        assert_eq!(rate.wait(now), None);
    }

    #[test]
    fn a_debt_is_paid_off_at_the_faster_rate_and_not_forgotten() {
        let now = Instant::now();
        let wait = |before: u64, after: Option<u64>| {
            let mut rate = Rate::changed(None, limit(None, Some(before)), now);
            // A burst of a tenth of a second, and ten seconds of debt.
            rate.as_mut().unwrap().begin(before * 101 / 10, now);
            let rate = Rate::changed(rate, limit(Some(1000), after), now);
            rate.unwrap().wait(now).map_or(0, |until| (until - now + Duration::from_millis(500)).as_secs())
        };
        assert_eq!(wait(1 << 20, Some(1 << 20)), 10);
        assert_eq!(wait(1 << 20, Some(10 << 20)), 1, "a rate that rises");
        assert_eq!(wait(10 << 20, Some(1 << 20)), 10, "a rate that falls");
        assert_eq!(wait(1 << 20, None), 0, "a limit that goes");
    }
}
