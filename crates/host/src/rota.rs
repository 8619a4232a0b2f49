//! Which VMs' guest memory the kernel is asked for next.
//!
//! Each look costs processor time that guests on a busy host lack (see
//! [`kernel_account`](crate::kernel_account)). A turn each second looks at a part of the VMs, the
//! longest unseen first. Only time on a processor counts: a thread that waits for one costs
//! nothing.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::run_id::RunId;

/// Turns of looking at VMs.
#[derive(Debug, Default)]
pub(crate) struct Rota {
    /// When each VM was looked at last. `None`: never.
    seen: HashMap<RunId, Option<Instant>>,
    /// Processor time that was spent in advance.
    debt: Duration,
    last: Option<Instant>,
}

/// One turn: VMs to look at, in this order.
#[derive(Debug)]
pub(crate) struct Turn {
    /// The first `overdue` of them are looked at before anything else.
    runs: Vec<RunId>,
    overdue: usize,
    allowed: Duration,
}

impl Rota {
    /// The time between two turns, and the shortest between two looks at a VM.
    pub(crate) const PERIOD: Duration = Duration::from_secs(1);
    /// A VM that was not looked at for this long is overdue. Longer, and users are shown numbers of
    /// a past that they do not remember; shorter, and 90 VMs of 1 GiB in small pages cost more than
    /// a tenth of a processor.
    const OVERDUE: Duration = Duration::from_secs(9);
    /// While nothing is overdue, turns take one part in this many of a processor's time.
    const SHARE: u32 = 100;
    /// Most that a turn takes, a tenth of a processor, however many VMs are overdue. A hostile VMM
    /// can make a look at it cost a few tenths of a second.
    const MOST: Duration = Duration::from_millis(100);

    /// The turn that begins now, over all VMs that run.
    pub(crate) fn turn(&mut self, now: Instant, runs: impl IntoIterator<Item = RunId>) -> Turn {
        let earlier = std::mem::take(&mut self.seen);
        let last_look = |run: RunId| (run, earlier.get(&run).copied().flatten());
        self.seen = runs.into_iter().map(last_look).collect();
        let mut order: Vec<(Option<Instant>, RunId)> =
            self.seen.iter().map(|(run, at)| (*at, *run)).collect();
        order.sort_unstable();
        let is_overdue =
            |at: Option<Instant>| at.is_none_or(|at| now.saturating_duration_since(at) >= Self::OVERDUE);
        let overdue = order.iter().filter(|(at, _)| is_overdue(*at)).count();
        let elapsed = self.last.replace(now).map_or(Self::PERIOD, |last| now.saturating_duration_since(last));
        self.debt = self.debt.saturating_sub(elapsed / Self::SHARE);
        let allowed = (Self::PERIOD / Self::SHARE).saturating_sub(self.debt);
        Turn { runs: order.into_iter().map(|(_, run)| run).collect(), overdue, allowed }
    }

    /// The turn that began at `began` looked at `runs`, which took `cost`.
    pub(crate) fn took(&mut self, began: Instant, runs: impl IntoIterator<Item = RunId>, cost: Duration) {
        for run in runs {
            if let Some(seen) = self.seen.get_mut(&run) {
                *seen = Some(began);
            }
        }
        // More would be paid for when all are overdue anyway.
        self.debt = (self.debt + cost).min(Self::MOST);
    }
}

impl Turn {
    /// Looks at VMs as long as there is time. `look` returns `None` for a VM that cannot be looked
    /// at. `spent` tells the time that the turn has taken so far.
    pub(crate) fn run<T>(
        &self,
        mut look: impl FnMut(RunId) -> Option<T>,
        spent: impl Fn() -> Duration,
    ) -> Vec<(RunId, T)> {
        let allowed = |i: usize| if i < self.overdue { Rota::MOST } else { self.allowed.min(Rota::MOST) };
        let due = self.runs.iter().enumerate().take_while(|(i, _)| spent() < allowed(*i));
        due.filter_map(|(_, run)| Some((*run, look(*run)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Runs `seconds` turns over VMs; each look takes the VM's `cost`. Returns the longest time
    /// between two looks at a VM, and the time that all turns took.
    fn run(vms: u64, cost: Duration, seconds: u32) -> (Duration, Duration) {
        let (begin, mut rota) = (Instant::now(), Rota::default());
        let mut seen: HashMap<RunId, Instant> = (0..vms).map(|n| (RunId(n), begin)).collect();
        let (mut longest, mut total) = (Duration::ZERO, Duration::ZERO);
        for second in 0..seconds {
            let now = begin + Rota::PERIOD * second;
            let spent = Cell::new(Duration::ZERO);
            let turn = rota.turn(now, (0..vms).map(RunId));
            let look = |_| {
                spent.set(spent.get() + cost);
                Some(())
            };
            let looked = turn.run(look, || spent.get());
            for (run, ()) in &looked {
                longest = longest.max(now - seen.insert(*run, now).unwrap());
            }
            rota.took(now, looked.into_iter().map(|(run, ())| run), spent.get());
            total += spent.get();
        }
        let last = begin + Rota::PERIOD * (seconds - 1);
        (seen.values().map(|at| last - *at).max().unwrap_or_default().max(longest), total)
    }

    #[test]
    fn each_vm_is_looked_at_within_ten_seconds_however_dear_that_is() {
        let (longest, total) = run(60, Duration::from_millis(10), 100);
        assert!(longest <= Duration::from_secs(10), "{longest:?}");
        assert!(total <= Duration::from_secs(10), "{total:?}");
        let (longest, _) = run(1, Duration::from_millis(500), 100);
        assert!(longest <= Duration::from_secs(10), "{longest:?}");
    }

    #[test]
    fn cheap_looks_are_taken_each_second_within_a_hundredth_of_a_processor() {
        assert_eq!(run(100, Duration::from_micros(50), 50).0, Rota::PERIOD);
        let (longest, total) = run(20, Duration::from_millis(2), 100);
        assert!(longest <= Duration::from_secs(8), "{longest:?}");
        assert!(total <= Duration::from_millis(1100), "{total:?}");
    }

    #[test]
    fn no_number_of_vms_takes_more_than_a_tenth_of_a_processor() {
        let (_, total) = run(500, Duration::from_millis(50), 100);
        assert!(total <= Duration::from_millis(15_000), "{total:?}");
    }

    #[test]
    fn vms_that_are_gone_are_forgotten() {
        let (now, mut rota) = (Instant::now(), Rota::default());
        rota.took(now, [RunId(7)], Duration::ZERO);
        drop(rota.turn(now, [RunId(1), RunId(2)]));
        drop(rota.turn(now, [RunId(2)]));
        assert_eq!(rota.seen.len(), 1);
    }
}
