use std::time::Duration;

use plimsoll_protocol::control::Facts;

/// What a VM does in a second, by the counters of its last two reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    /// Pages written to swap space.
    pub(super) swapped_out: u64,
    /// Pages read from there.
    pub(super) swapped_in: u64,
    /// Pages looked at for sharing.
    pub(super) scanned: u64,
    /// Pages merged, zero pages included.
    pub(super) merged: u64,
    /// Shared pages that the guest wrote to.
    pub(super) broken: u64,
    /// Processor time spent on that, in ten-thousandths of a processor.
    pub(super) cpu: u64,
}

/// Reports that come closer to each other are taken together with the next: over less time a rate
/// is noise.
const SHORTEST: Duration = Duration::from_millis(200);

impl Rates {
    /// The rates between two reports that came `elapsed` apart; `None`: too close. Counters that
    /// run backwards, as only a hostile VMM's do, count as standing still.
    pub(super) fn between(before: &Facts, after: &Facts, elapsed: Duration) -> Option<Self> {
        if elapsed < SHORTEST {
            return None;
        }
        let micros = elapsed.as_micros().max(1);
        let rate = |counter: fn(&Facts) -> u64| {
            let moved = u128::from(counter(after).saturating_sub(counter(before)));
            u64::try_from(moved * 1_000_000 / micros).unwrap_or(u64::MAX)
        };
        Some(Self {
            swapped_out: rate(|f| f.swapped_out),
            swapped_in: rate(|f| f.swapped_in),
            scanned: rate(|f| f.scanned),
            merged: rate(|f| f.merged.saturating_add(f.zeroed)),
            broken: rate(|f| f.broken),
            cpu: rate(|f| u64::try_from(f.scan_cpu.as_micros()).unwrap_or(u64::MAX)) / 100,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_a_second_and_survive_any_counter() {
        let facts = |n: u64, cpu: u64| Facts {
            scanned: n,
            merged: n,
            zeroed: n,
            scan_cpu: Duration::from_millis(cpu),
            ..Facts::default()
        };
        let two = Duration::from_secs(2);
        let rates = Rates::between(&facts(100, 0), &facts(300, 100), two).unwrap();
        assert_eq!((rates.scanned, rates.merged, rates.cpu, rates.broken), (100, 200, 500, 0));
        assert_eq!(Rates::between(&facts(100, 0), &facts(50, 0), two), Some(Rates::default()));
        assert_eq!(Rates::between(&facts(0, 0), &facts(9, 9), Duration::ZERO), None);
        let most = Facts { scan_cpu: Duration::MAX, ..facts(u64::MAX, 0) };
        assert_eq!(Rates::between(&facts(0, 0), &most, SHORTEST).unwrap().merged, u64::MAX);
    }
}
