//! What a guest can spare for its balloon, by its own account.
//!
//! A balloon takes pages from its guest's kernel. Beyond what the guest has available it takes
//! what programs use: the guest swaps, scrapes for pages in its allocator, or kills. Others' guests
//! stood still for hours that way. So a balloon is never larger than what leaves the guest a
//! [reserve], and what has to come back beyond that is compressed or swapped out by the
//! host. The bound follows the guest's account page by page, without thresholds: where nothing
//! changes it stands still.
//!
//! A guest that takes pages out of its balloon by itself (deflate-on-oom), or whose programs had
//! to wait for its allocator while it had less than its reserve, gets all of its balloon back in
//! one step. The balloon then comes back slowly, by [`Spare::RETURN`] of the guest's memory a
//! second.
//!
//! The account may be a lie. One that says too little is available makes the balloon small: that
//! VM is then reclaimed from by paging, as one without a driver. One that says too much is
//! squeezed for it.

use std::time::Duration;

use plimsoll_units::Pages;

use crate::Thresholds;
use crate::fraction::{count, whole};

/// What a guest's balloon driver says of its guest, and how large the balloon was then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Memory that the guest's kernel manages, the balloon included.
    pub total: Pages,
    /// Memory that the guest can use without swapping.
    pub available: Pages,
    /// The part of it that nothing is in.
    pub free: Pages,
    /// Pages in its balloon when it said so.
    pub ballooned: Pages,
    /// How often its programs had to wait for memory since it booted, as far as it says so:
    /// allocations that stalled, and programs that were killed.
    pub stalls: u64,
}

impl Account {
    fn is_short(&self) -> bool {
        self.available < reserve(self.total)
    }
}

/// The largest balloon that one guest can bear, over time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spare {
    account: Option<Account>,
    /// What the account leaves for the balloon.
    bound: Pages,
    /// What a balloon that was given back may have grown to by now; `None`: it was not of late.
    returned: Option<f64>,
}

impl Spare {
    /// The part of a guest's memory by which its balloon may grow in a second after it was given
    /// back: all of it in a minute. Faster, and a guest whose programs have just begun to need
    /// memory is squeezed before they have touched it; slower, and memory that a guest needed for
    /// a moment stays with it for long.
    pub const RETURN: f64 = 1.0 / 64.0;

    /// `elapsed` has passed. `account` is what the guest said last; `took` says that it has taken
    /// pages out of its balloon by itself since.
    pub fn observe(&mut self, elapsed: Duration, account: Option<&Account>, took: bool) {
        let Some(account) = account else {
            *self = Self::default();
            return;
        };
        let before = self.account.replace(*account);
        if before != self.account {
            let all = account.ballooned.saturating_add(account.available);
            self.bound = all.saturating_sub(reserve(account.total));
        }
        let more = before.is_some_and(|before| account.stalls > before.stalls);
        let stalled = more && account.is_short();
        let total = count(account.total);
        self.returned = match self.returned {
            _ if took || stalled => Some(0.0),
            Some(returned) => Some(returned + total * Self::RETURN * elapsed.as_secs_f64())
                .filter(|returned| *returned < total),
            None => None,
        };
    }

    /// The largest balloon; `None`: the guest has given no account.
    pub fn balloon(&self) -> Option<Pages> {
        self.account?;
        let returned = self.returned.map_or(Pages(u64::MAX), whole);
        Some(self.bound.min(returned))
    }

    /// The most that a guest of `size` uses by its own account: what is neither free nor in its
    /// balloon. `None`: the guest has given no account.
    pub fn used(&self, size: Pages) -> Option<Pages> {
        let account = self.account?;
        Some(size.saturating_sub(account.free).saturating_sub(account.ballooned))
    }

    /// Whether the guest has less than its reserve while its balloon has some of its memory.
    pub fn is_short(&self) -> bool {
        self.account.is_some_and(|account| account.ballooned > Pages::ZERO && account.is_short())
    }
}

/// What a guest of `total` memory keeps available: what its kernel needs to serve programs
/// without making them wait. It slides with the size as the host's own minFree does.
fn reserve(total: Pages) -> Pages {
    Thresholds::sliding(total.bytes()).clear
}

#[cfg(test)]
mod tests {
    use plimsoll_units::Bytes;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn mib(n: u64) -> Pages {
        Pages::floor(Bytes::mib(n))
    }

    fn account(available: u64, ballooned: u64, stalls: u64) -> Account {
        let [total, available, ballooned] = [200, available, ballooned].map(mib);
        Account { total, available, free: Pages(available.0 / 2), ballooned, stalls }
    }

    #[test]
    fn a_balloon_leaves_the_guest_its_reserve() {
        let mut spare = Spare::default();
        assert_eq!(spare.balloon(), None);
        assert_eq!(reserve(mib(200)), Pages(3072), "6 %");
        spare.observe(SECOND, Some(&account(80, 40, 0)), false);
        assert_eq!(spare.balloon(), Some(mib(120) - Pages(3072)));
        // What it has inflated since is part of that.
        spare.observe(SECOND, Some(&account(80, 40, 0)), false);
        assert_eq!(spare.balloon(), Some(mib(120) - Pages(3072)));
        spare.observe(SECOND, Some(&account(2, 100, 0)), false);
        assert_eq!(spare.balloon(), Some(mib(102) - Pages(3072)));
        assert!(spare.is_short());
        spare.observe(SECOND, None, false);
        assert_eq!(spare.balloon(), None);
    }

    #[test]
    fn a_guest_that_stalls_gets_its_balloon_back_at_once_and_loses_it_slowly() {
        for (stalls, took) in [(1, false), (0, true)] {
            let mut spare = Spare::default();
            spare.observe(SECOND, Some(&account(2, 100, 0)), false);
            spare.observe(SECOND, Some(&account(1, 100, stalls)), took);
            assert_eq!(spare.balloon(), Some(Pages::ZERO));
            for _ in 0..32 {
                spare.observe(SECOND, Some(&account(150, 0, stalls)), false);
            }
            assert_eq!(spare.balloon(), Some(mib(100)));
            for _ in 0..32 {
                spare.observe(SECOND, Some(&account(150, 0, stalls)), false);
            }
            assert_eq!(spare.balloon(), Some(mib(150) - Pages(3072)));
            assert!(!spare.is_short());
        }
    }

    #[test]
    fn what_is_free_or_in_the_balloon_is_not_used() {
        let mut spare = Spare::default();
        assert_eq!(spare.used(mib(210)), None);
        spare.observe(SECOND, Some(&account(80, 40, 0)), false);
        assert_eq!(spare.used(mib(210)), Some(mib(210 - 40 - 40)));
        assert_eq!(spare.used(mib(30)), Some(Pages::ZERO));
    }

    #[test]
    fn an_allocation_that_stalls_with_memory_left_is_no_sign_of_need() {
        let mut spare = Spare::default();
        spare.observe(SECOND, Some(&account(60, 100, 0)), false);
        spare.observe(SECOND, Some(&account(60, 100, 9)), false);
        assert_eq!(spare.balloon(), Some(mib(160) - Pages(3072)));
    }
}
