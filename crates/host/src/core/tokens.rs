//! How much of the sharing thread's time VMs may take.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use plimsoll_protocol::sharing;

use super::RunId;
use crate::windowed::Windowed;

/// Tokens a second of all VMs together. A token is what a look-up costs, a tenth of a microsecond:
/// a fifth of a processor. Less, and a host whose VMs come up at once shares late; more, and
/// hostile VMMs keep honest ones from sharing.
const RATE_OF_ALL: i64 = 2_000_000;
/// Tokens a second of one VM, however few ask: a tenth of a processor. Less, and a VMM that may use
/// a whole processor to look for pages would wait for nothing.
const RATE_OF_ONE: i64 = RATE_OF_ALL / 2;
/// Unused tokens are kept for this long: what an honest VMM sends at once after a quiet time.
const BURST: Duration = Duration::from_millis(250);
/// Tokens that may always be kept: with fewer than the largest question costs, it would never be
/// answered.
const FEWEST: i64 = 2048;
const _: () = assert!(sharing::WINDOW as u64 * Tokens::OFFERED <= FEWEST.unsigned_abs());
/// How long a VM that has asked counts as one that asks.
const WINDOW: Duration = Duration::from_secs(1);

/// The VMs that ask. They have equal parts of the time.
#[derive(Debug, Default)]
pub(super) struct Askers(Windowed<BTreeSet<RunId>>);

impl Askers {
    /// Notes that `run` asks. Returns how many tokens a second it may have.
    pub(super) fn ask(&mut self, run: RunId, now: Instant) -> i64 {
        self.0.advance(now, WINDOW);
        self.0.now.insert(run);
        let askers = self.0.before.len().max(self.0.now.len());
        RATE_OF_ONE.min(RATE_OF_ALL / i64::try_from(askers).unwrap_or(i64::MAX))
    }
}

/// The tokens that one VM has left. Without tokens its questions are answered at once with nothing:
/// it has looked for pages in vain, and other VMs do not wait for it.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// Below zero after more was given back than there were tokens for.
    left: i64,
    since: Option<Instant>,
}

impl Tokens {
    /// What a page costs that is offered, and not just looked up: it is copied, digested (1.5 us)
    /// and written.
    pub(super) const OFFERED: u64 = 32;

    /// The most that is kept at `rate` tokens a second.
    fn most(rate: i64) -> i64 {
        (rate / 4).max(FEWEST)
    }

    fn refill(&mut self, now: Instant, rate: i64) {
        let passed = self.since.map_or(BURST, |since| now.saturating_duration_since(since));
        let micros = i64::try_from(passed.min(BURST * 2).as_micros()).unwrap_or(0);
        // The first time there are as many as may be kept.
        let more = if self.since.is_none() { Self::most(rate) } else { micros * rate / 1_000_000 };
        // Less than one token is kept as time: a VM that asks often would get none.
        if more > 0 || self.since.is_none() {
            self.left = (self.left + more).min(Self::most(rate));
            self.since = Some(now);
        }
    }

    /// Takes what a question costs, if that much is left at `rate` tokens a second.
    pub(super) fn take(&mut self, now: Instant, rate: i64, cost: u64) -> bool {
        self.refill(now, rate);
        let cost = i64::try_from(cost).unwrap_or(i64::MAX);
        let may = cost <= self.left;
        if may {
            self.left -= cost;
        }
        may
    }

    /// Takes what has to be done in any case.
    pub(super) fn spend(&mut self, now: Instant, rate: i64, cost: u64) {
        self.refill(now, rate);
        let cost = i64::try_from(cost).unwrap_or(i64::MAX);
        self.left = self.left.saturating_sub(cost).max(-Self::most(rate));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `vms` that ask as fast as they can are answered in `seconds`.
    fn flood(vms: u64, seconds: u64, cost: u64) -> Vec<u64> {
        let (mut askers, begin) = (Askers::default(), Instant::now());
        let mut all: Vec<(Tokens, u64)> = (0..vms).map(|_| (Tokens::default(), 0)).collect();
        for tick in 0..seconds * 100 {
            let now = begin + Duration::from_millis(tick * 10);
            for (vm, (tokens, taken)) in (0..).zip(&mut all) {
                let rate = askers.ask(RunId(vm), now);
                while tokens.take(now, rate, cost) {
                    *taken += cost;
                }
            }
        }
        all.into_iter().map(|(_, taken)| taken).collect()
    }

    #[test]
    fn a_flood_is_answered_at_a_bounded_rate_and_a_quiet_vm_at_once() {
        let alone = flood(1, 1, 512)[0];
        assert!((1_000_000..=1_300_000).contains(&alone), "{alone}");
        let (mut tokens, now) = (Tokens::default(), Instant::now());
        assert!(tokens.take(now, RATE_OF_ONE, 512));
        tokens.spend(now, RATE_OF_ONE, u64::MAX);
        let later = |ms| now + Duration::from_millis(ms);
        assert!(!tokens.take(later(100), RATE_OF_ONE, 1), "what it has given back counts");
        assert!(tokens.take(later(1000), RATE_OF_ONE, 512));
    }

    #[test]
    fn many_take_together_no_more_than_a_few_and_each_the_same() {
        for vms in [10, 300] {
            // The largest question: 64 pages offered.
            let taken = flood(vms, 10, 64 * Tokens::OFFERED);
            let all: u64 = taken.iter().sum();
            // Those that ask first find few others.
            assert!(all <= 24_000_000, "{vms} VMs took {all}");
            let (least, most) = (taken.iter().min().unwrap(), taken.iter().max().unwrap());
            assert!(*least > 10_000 && *most <= 2 * least + 600_000, "{vms} VMs: {least} to {most}");
        }
    }
}
