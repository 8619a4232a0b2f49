//! The budget follows the machine's memory for VMs.
//!
//! A budget that the operator named stays: the part that other programs have taken is not divided,
//! and comes back at once. An automatic budget follows the machine: it falls at once and rises
//! slowly. Between the two readings of [`Usable`] it rests.

use std::time::Duration;

use plimsoll_units::Pages;

use super::Core;
use crate::config::{MIN_BUDGET, ThresholdChoice};
use crate::memory::Usable;

/// An automatic budget rises each second by one part in this many of the difference. Faster, and
/// memory that a program uses now and then is given to VMs and called back each time; slower, and
/// VMs wait for minutes for memory that is free.
const RISE: u128 = 60;
/// Longest time between two readings that counts as time in which memory was free.
const BELIEVED: Duration = Duration::from_secs(2);
/// Events tell of a change of the budget by more than one part in this many.
const NEWS: u64 = 10;

/// A budget that follows what the machine has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AutomaticBudget {
    /// How thresholds follow from it.
    pub(crate) thresholds: ThresholdChoice,
    /// The budget that users know of.
    pub(crate) told: Pages,
}

impl Core {
    /// Takes what the machine has for VMs now.
    pub(super) fn usable(&mut self, usable: Usable) {
        let elapsed = self.clock.now.saturating_duration_since(self.last_usable).min(BELIEVED);
        self.last_usable = self.clock.now;
        match self.settings.automatic {
            Some(automatic) => self.follow(usable, automatic, elapsed),
            None => self.sustain(Pages::floor(usable.now)),
        }
    }

    fn follow(&mut self, usable: Usable, automatic: AutomaticBudget, elapsed: Duration) {
        let before = self.ledger.configured();
        let budget = next(before, usable, elapsed);
        if budget == before {
            return;
        }
        self.ledger.configure(budget);
        // With nothing to divide all thresholds would be zero, and the host always in state high.
        self.settings.thresholds = automatic.thresholds.of(budget.bytes().max(MIN_BUDGET));
        let told = automatic.told;
        if told.0.abs_diff(budget.0) <= told.0 / NEWS {
            return;
        }
        self.settings.automatic = Some(AutomaticBudget { told: budget, ..automatic });
        let (now, then) = (budget.bytes(), told.bytes());
        let text = if budget < told {
            self.urgent = true;
            format!("the budget falls from {then} to {now}: other programs use more memory of this host")
        } else {
            format!("the budget rises from {then} to {now}: this host has more memory available")
        };
        self.event(None, text);
    }

    /// Other programs of the host may have taken memory of the budget: it is not promised any more,
    /// and called back from VMs.
    fn sustain(&mut self, usable: Pages) {
        let before = self.ledger.taken();
        self.ledger.sustain(usable);
        let taken = self.ledger.taken();
        if before == Pages::ZERO && taken > Pages::ZERO {
            self.urgent = true;
            let text = format!(
                "{} of the budget is used by other programs on this host: reclaiming it from VMs",
                taken.bytes()
            );
            self.event(None, text);
        } else if before > Pages::ZERO && taken == Pages::ZERO {
            self.event(None, "the whole budget can be used again");
        }
    }
}

/// The automatic budget `elapsed` after it was `budget`.
fn next(budget: Pages, usable: Usable, elapsed: Duration) -> Pages {
    let lasting = Pages::floor(usable.lasting);
    let rise = u128::from(lasting.saturating_sub(budget).0) * elapsed.as_millis() / (RISE * 1000);
    let risen = budget + Pages(u64::try_from(rise).unwrap_or(0));
    risen.min(Pages::floor(usable.now))
}

#[cfg(test)]
mod tests {
    use plimsoll_units::Bytes;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn usable(now: u64, lasting: u64) -> Usable {
        Usable { now: Bytes::mib(now), lasting: Bytes::mib(lasting) }
    }

    fn mib(n: u64) -> Pages {
        Pages::floor(Bytes::mib(n))
    }

    #[test]
    fn it_falls_at_once_rests_within_half_of_the_margin_and_rises_slowly() {
        assert_eq!(next(mib(1000), usable(400, 300), SECOND), mib(400));
        assert_eq!(next(mib(400), usable(450, 350), SECOND), mib(400));
        assert_eq!(next(mib(400), usable(400, 300), SECOND), mib(400));
        assert_eq!(next(mib(400), usable(1100, 1000), SECOND), mib(410));
        assert_eq!(next(mib(400), usable(1100, 1000), Duration::ZERO), mib(400));
    }

    #[test]
    fn it_comes_to_rest_when_vms_cost_the_host_a_little_beside_their_memory() {
        // VMs that fill a budget make the kernel use memory for them: a hundredth of it.
        let mut budget = mib(100);
        let mut changes = Vec::new();
        for _ in 0..1000 {
            let lasting = mib(2000).0 - budget.0 / 100;
            let usable = Usable { now: Pages(lasting + mib(128).0).bytes(), lasting: Pages(lasting).bytes() };
            let after = next(budget, usable, SECOND);
            changes.push(after.0.cmp(&budget.0));
            budget = after;
        }
        assert!(!changes.contains(&std::cmp::Ordering::Less), "it never falls");
        assert!(changes.ends_with(&[std::cmp::Ordering::Equal; 100]) && budget > mib(1970), "{budget:?}");
    }

    proptest::proptest! {
        #[test]
        fn it_is_never_beyond_what_the_machine_has_nor_faster_than_it_may(
            budget in 0..1u64 << 40, now: u64, lasting: u64, ms in 0..2000u64,
        ) {
            let usable = Usable { now: Bytes(now), lasting: Bytes(lasting.min(now)) };
            let after = next(Pages(budget), usable, Duration::from_millis(ms));
            proptest::prop_assert!(after <= Pages::floor(usable.now));
            let most = Pages::floor(usable.lasting).0.saturating_sub(budget) / 30;
            proptest::prop_assert!(after.0 <= budget + most);
        }
    }
}
