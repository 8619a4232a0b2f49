use std::time::{Duration, Instant};

use plimsoll_protocol::control::RateLimit;

/// What may be done at once after a rest, as time at the full rate. Longer, and a guest that does
/// something now and then takes a slow disk away from others for as long; shorter, and rounding
/// up to a wait of a millisecond costs a busy guest a part of its rate.
const BURST: Duration = Duration::from_millis(100);

/// Holds a device to a rate of operations and bytes.
///
/// An operation may begin as long as its bucket is not empty, and takes what it costs even if that
/// is more than there is. So operations of any size pass, and on average none passes too early.
#[derive(Debug)]
pub(super) struct Rate {
    operations: Option<Bucket>,
    bytes: Option<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    per_second: f64,
    /// Below zero it is in debt.
    level: f64,
    at: Instant,
}

impl Rate {
    /// The rate of `limit`, with full buckets at `now`; `None`: there is no limit.
    pub(super) fn new(limit: RateLimit, now: Instant) -> Option<Self> {
        let bucket = |per_second: Option<u64>| per_second.map(|per_second| Bucket::new(per_second, now));
        let (operations, bytes) = (bucket(limit.iops), bucket(limit.bandwidth.map(|bytes| bytes.0)));
        (operations.is_some() || bytes.is_some()).then_some(Self { operations, bytes })
    }

    /// When the next operation may begin; `None`: at once.
    pub(super) fn wait(&self, now: Instant) -> Option<Instant> {
        self.buckets().filter_map(|bucket| bucket.wait(now)).max()
    }

    /// An operation that moves `bytes` begins at `now`.
    pub(super) fn begin(&mut self, bytes: u64, now: Instant) {
        if let Some(operations) = &mut self.operations {
            operations.take(1, now);
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
    fn new(per_second: u64, now: Instant) -> Self {
        let per_second = per_second.max(1) as f64;
        Self { per_second, level: per_second * BURST.as_secs_f64(), at: now }
    }

    fn level(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.level + elapsed * self.per_second).min(self.per_second * BURST.as_secs_f64())
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
        let (mut rate, mut now, mut count) = (Rate::new(limit, begin).unwrap(), begin, 0);
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

    #[test]
    fn a_device_keeps_to_its_rate_whatever_the_size_of_operations() {
        let limit = |iops, bandwidth: Option<u64>| RateLimit { iops, bandwidth: bandwidth.map(Bytes) };
        let time = Duration::from_secs(10);
        // 10 s and the burst of a tenth.
        assert!((1010..=1012).contains(&run(limit(Some(100), None), 1 << 30, time)));
        assert!((2525..=2530).contains(&run(limit(None, Some(1 << 20)), 4096 + 96, time)));
        // An operation of a megabyte waits for no full bucket, and is paid for afterwards.
        assert!((10..=11).contains(&run(limit(None, Some(1 << 20)), 1 << 20, time)));
        assert!((50..=51).contains(&run(limit(Some(5), Some(1 << 30)), 4096, time)));
    }

    #[test]
    fn without_a_limit_there_is_no_rate_and_with_one_the_other_does_not_wait() {
        let now = Instant::now();
        assert!(Rate::new(RateLimit::default(), now).is_none());
        let limit = RateLimit { iops: Some(100), bandwidth: None };
        let mut rate = Rate::new(limit, now).unwrap();
        rate.begin(u64::MAX, now);
        assert_eq!(rate.wait(now), None);
    }
}
