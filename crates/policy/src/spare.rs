//! The memory that a guest can spare for its balloon, by its own account.
//!
//! A balloon takes pages from its guest's kernel. Beyond the guest's available memory it takes
//! pages that programs use: the guest swaps, searches for pages in its allocator, or kills. Guests
//! of other hypervisors stood still for hours that way. So a balloon always leaves its guest a
//! [reserve], and the host compresses or swaps out the rest of what has to come back. The bound
//! follows the guest's account page by page, without thresholds: it rests while the account rests.
//!
//! A guest may take pages out of its balloon by itself (deflate-on-oom), or its programs may wait
//! for its allocator while it has less than its reserve. It then gets all of its balloon back in
//! one step. The balloon then comes back slowly, by [`Spare::RETURN`] of the guest's memory a
//! second.
//!
//! The account may be a lie. If it understates available memory, the balloon is small, and the host
//! reclaims from that VM by paging, as from a VM without a driver. If it overstates available
//! memory, the balloon squeezes its own guest.

use std::time::Duration;

use plimsoll_units::Pages;

use crate::fraction::{count, whole};
use crate::state::Thresholds;

/// The statistics of a guest's balloon driver, with the size of the balloon at that time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Memory that the guest's kernel manages, the balloon included.
    pub total: Pages,
    /// Memory that the guest can use without swapping.
    pub available: Pages,
    /// The part of it that holds nothing.
    pub free: Pages,
    /// Pages in its balloon at that time.
    pub ballooned: Pages,
    /// The number of times that its programs had to wait for memory since it booted, if it says so:
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
    /// The largest balloon by the account.
    bound: Pages,
    /// The largest size by now of a balloon that was given back; `None`: none was given
    /// back of late.
    returned: Option<f64>,
}

impl Spare {
    /// The part of a guest's memory by which its balloon may grow in a second after it was given
    /// back: all of it in a minute. If faster, a guest is squeezed before its programs have touched
    /// the memory that they need. If slower, memory that a guest needed for a moment stays with it
    /// for long.
    pub const RETURN: f64 = 1.0 / 64.0;

    /// Takes the guest's last `account` after `elapsed`. `took`: the guest has taken pages out of
    /// its balloon by itself since the last call.
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

    /// The most that a guest of `size` uses by its own account: memory that is neither free nor in
    /// its balloon. `None`: the guest has given no account.
    pub fn used(&self, size: Pages) -> Option<Pages> {
        let account = self.account?;
        Some(size.saturating_sub(account.free).saturating_sub(account.ballooned))
    }

    /// The most free pages of a guest of `size` that hold nothing: it holds `held`, and `ballooned`
    /// is in its balloon. Pages that are paged out hold nothing either; by the guest's account they
    /// are not free.
    pub fn hollow(&self, size: Pages, held: Pages, ballooned: Pages) -> Pages {
        let empty = size.saturating_sub(held).saturating_sub(ballooned);
        let Some(account) = self.account else { return empty };
        // A balloon that has grown since has taken free pages, as far as there were any.
        let taken = ballooned.saturating_sub(account.ballooned);
        empty.min(account.free.saturating_sub(taken))
    }

    /// The memory of a guest of `size` that its kernel and programs hold by its own account: it is
    /// neither available nor in its balloon. `None`: the guest has given no account.
    pub fn committed(&self, size: Pages) -> Option<Pages> {
        let account = self.account?;
        Some(size.saturating_sub(account.available).saturating_sub(account.ballooned))
    }

    /// Returns whether the guest has less than its reserve while its balloon has some of its
    /// memory.
    pub fn is_short(&self) -> bool {
        self.account.is_some_and(|account| account.ballooned > Pages::ZERO && account.is_short())
    }
}

/// The memory that a guest of `total` memory keeps available: its kernel needs it to serve programs
/// without waits. It slides with the size as the host's own minFree does.
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
        // Pages that the balloon has taken since are part of that.
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
    fn what_is_available_or_in_the_balloon_is_not_committed() {
        let mut spare = Spare::default();
        assert_eq!(spare.committed(mib(210)), None);
        spare.observe(SECOND, Some(&Account { free: mib(10), ..account(80, 40, 0) }), false);
        assert_eq!(spare.committed(mib(210)), Some(mib(210 - 80 - 40)));
        assert_eq!(spare.committed(mib(30)), Some(Pages::ZERO));
    }

    #[test]
    fn an_allocation_that_stalls_with_memory_left_is_no_sign_of_need() {
        let mut spare = Spare::default();
        spare.observe(SECOND, Some(&account(60, 100, 0)), false);
        spare.observe(SECOND, Some(&account(60, 100, 9)), false);
        assert_eq!(spare.balloon(), Some(mib(160) - Pages(3072)));
    }
}
