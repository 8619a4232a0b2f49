//! The entitlements of VMs without pools.
//!
//! Min-funding revocation with the idle-memory tax takes pages from the client with the lowest
//! price `rho = S / (P * (f + k * (1 - f)))`, `k = 1 / (1 - tax)` (Waldspurger 2002, sections 5.1
//! and 5.3). With `A = f * P` active pages the denominator is the cost of the client's pages: 1 for
//! an active page, `k` for an idle one. At rest all clients that no bound holds pay the same per
//! share, the *water level*. A client's pages are a piecewise linear, never falling function of the
//! level. So a sweep over the bends of all clients finds the exact level at which the pages add up,
//! in O(n log n).

use plimsoll_units::Pages;

use crate::client::Client;
use crate::division::Division;
use crate::family::Family;
use crate::tax::Tax;

/// Returns the entitlement of each client, in the order given.
///
/// Every entitlement lies between reservation and limit. They add up to `available` exactly where
/// limits and reservations allow it. Where the reservations exceed `available`, which happens only
/// when memory was lost after admission, each client gets its reservation scaled down in
/// proportion.
///
/// [`divide`](crate::divide) does the same over a tree of resource pools.
pub fn entitlements(available: Pages, tax: Tax, clients: &[Client]) -> Vec<Pages> {
    Division::of_root(&Family::flat(tax, clients), available, clients.len(), 1).vms
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(reservation: u64, limit: u64, shares: u64, active: u64) -> Client {
        Client { reservation: Pages(reservation), limit: Pages(limit), shares, active: Pages(active) }
    }

    fn any_clients(most: u64) -> impl Strategy<Value = Vec<Client>> {
        let one = (0..=most, 0..=most, 1..2000u64, 0..=most)
            .prop_map(|(a, b, shares, active)| client(a.min(b), a.max(b), shares, active));
        prop::collection::vec(one, 1..8)
    }

    fn any_tax() -> impl Strategy<Value = Tax> {
        (0.0..0.95f64).prop_map(|rate| Tax::new(rate).unwrap())
    }

    /// The paper's algorithm as printed: all clients start at their limits, and the client with the
    /// lowest price loses a page at a time.
    fn revoke_page_by_page(available: u64, tax: Tax, clients: &[Client]) -> Vec<u64> {
        let level = |i: usize, pages: u64| {
            let active = clients[i].active.0;
            let cost = pages.min(active) as f64 + pages.saturating_sub(active) as f64 / (1.0 - tax.rate());
            cost / clients[i].shares as f64
        };
        let mut pages: Vec<u64> = clients.iter().map(|c| c.limit.0).collect();
        while pages.iter().sum::<u64>() > available {
            let victim = (0..clients.len())
                .filter(|&i| pages[i] > clients[i].reservation.0)
                .max_by(|&a, &b| level(a, pages[a]).total_cmp(&level(b, pages[b])));
            match victim {
                Some(i) => pages[i] -= 1,
                None => break,
            }
        }
        pages
    }

    #[test]
    fn figure_7_of_the_paper() {
        // Two VMs of 256 MB, equal shares, 360 MB for them; one idle with about 10 MB active, one
        // busy.
        let mb = 256;
        let vms = [client(0, 256 * mb, 1, 10 * mb), client(0, 256 * mb, 1, 256 * mb)];
        let plain = entitlements(Pages(360 * mb), Tax::NONE, &vms);
        assert_eq!(plain, [Pages(180 * mb), Pages(180 * mb)]);
        let taxed = entitlements(Pages(360 * mb), Tax::DEFAULT, &vms);
        // Equal prices: 10 + 4 * (idle - 10) = busy and idle + busy = 360 give 78 and 282. The busy
        // VM's size stops it at 256. The paper measured about 101 and 243.
        assert_eq!(taxed, [Pages(104 * mb), Pages(256 * mb)]);
    }

    #[test]
    fn reservations_that_no_longer_fit_shrink_in_proportion() {
        let vms = [client(100, 200, 1, 0), client(300, 300, 1, 0)];
        assert_eq!(entitlements(Pages(200), Tax::DEFAULT, &vms), [Pages(50), Pages(150)]);
    }

    proptest! {
        #[test]
        fn memory_is_conserved_within_bounds(available in 0..6000u64, tax in any_tax(), vms in any_clients(1000)) {
            let got = entitlements(Pages(available), tax, &vms);
            let sum: u64 = got.iter().map(|p| p.0).sum();
            let min: u64 = vms.iter().map(|c| c.reservation.0).sum();
            let max: u64 = vms.iter().map(|c| c.limit.0).sum();
            if min > available {
                prop_assert!(sum <= available && sum + vms.len() as u64 > available);
            } else {
                prop_assert_eq!(sum, available.min(max));
                for (p, c) in got.iter().zip(&vms) {
                    prop_assert!(c.reservation <= *p && *p <= c.limit, "{:?} {:?}", p, c);
                }
            }
        }

        #[test]
        fn it_rests_where_revocation_page_by_page_does(spare in 0..300u64, tax in any_tax(), vms in any_clients(100)) {
            let available = vms.iter().map(|c| c.reservation.0).sum::<u64>() + spare;
            let exact = entitlements(Pages(available), tax, &vms);
            let stepped = revoke_page_by_page(available, tax, &vms);
            for (e, s) in exact.iter().zip(&stepped) {
                prop_assert!(e.0.abs_diff(*s) <= 1, "exact {:?} stepped {:?}", exact, stepped);
            }
        }

        #[test]
        fn more_shares_never_mean_less(
            available in 0..6000u64, tax in any_tax(), vms in any_clients(1000), who in any::<prop::sample::Index>(), more in 1..500u64,
        ) {
            let i = who.index(vms.len());
            let before = entitlements(Pages(available), tax, &vms)[i];
            let mut raised = vms;
            raised[i].shares += more;
            let after = entitlements(Pages(available), tax, &raised)[i];
            prop_assert!(after.0 + 1 >= before.0, "{:?} -> {:?}", before, after);
        }

        #[test]
        fn without_tax_memory_goes_by_shares_within_bounds(spare in 0..6000u64, vms in any_clients(1000)) {
            let available = vms.iter().map(|c| c.reservation.0).sum::<u64>() + spare;
            let got = entitlements(Pages(available), Tax::NONE, &vms);
            // Clients that could take a page have no fewer pages per share than clients that could
            // give one, within a page.
            for (a, to) in vms.iter().zip(&got).filter(|(c, p)| **p < c.limit) {
                for (b, from) in vms.iter().zip(&got).filter(|(c, p)| **p > c.reservation) {
                    prop_assert!((to.0 + 1) * b.shares >= (from.0 - 1) * a.shares, "{:?}", got);
                }
            }
        }

        #[test]
        fn without_tax_activity_does_not_matter(available in 0..6000u64, vms in any_clients(1000)) {
            let with = entitlements(Pages(available), Tax::NONE, &vms);
            let idle: Vec<Client> = vms.iter().map(|c| Client { active: Pages(0), ..*c }).collect();
            let without = entitlements(Pages(available), Tax::NONE, &idle);
            for (a, b) in with.iter().zip(&without) {
                prop_assert!(a.0.abs_diff(b.0) <= 1);
            }
        }

        #[test]
        fn idle_pages_are_taken_before_active_ones_at_equal_shares(sizes in prop::collection::vec((10..500u64, 0..=100u64), 2..8), short in 0..3000u64) {
            // The steepest tax: while a client holds more idle memory than it pays for, no client
            // gives an active page.
            let tax = Tax::new(0.99).unwrap();
            let vms: Vec<Client> = sizes.iter().map(|&(size, percent)| client(0, size, 1, size * percent / 100)).collect();
            let all: u64 = vms.iter().map(|c| c.limit.0).sum();
            let got = entitlements(Pages(all.saturating_sub(short)), tax, &vms);
            let costs: Vec<f64> = vms.iter().zip(&got).map(|(c, p)| {
                let active = p.0.min(c.active.0);
                active as f64 + 100.0 * (p.0 - active) as f64
            }).collect();
            for (loser, lost) in vms.iter().zip(&got).filter(|(c, p)| p.0 < c.active.0) {
                for (i, (holder, has)) in vms.iter().zip(&got).enumerate().filter(|(_, (c, p))| p.0 > c.active.0) {
                    prop_assert!(
                        costs[i] <= lost.0 as f64 + 200.0,
                        "{:?} keeps {} while {:?} is cut to {}", holder, has.0, loser, lost.0
                    );
                }
            }
        }

        #[test]
        fn sums_of_shares_far_apart_lose_nothing(big in 1..=8u32, available in 1..1_000_000_000u64) {
            // A host of terabytes with shares from 1 to 10^8: the small ones' prices still agree
            // within a page.
            let shares: Vec<u64> = (0..40).map(|i| 10u64.pow(i % (big + 1))).collect();
            let vms: Vec<Client> = shares.iter().map(|&s| client(0, 1 << 28, s, 1 << 20)).collect();
            let got = entitlements(Pages(available), Tax::DEFAULT, &vms);
            prop_assert_eq!(got.iter().map(|p| p.0).sum::<u64>(), available);
            for pair in got.chunks(big as usize + 1).collect::<Vec<_>>().windows(2) {
                for (a, b) in pair[0].iter().zip(pair[1]) {
                    prop_assert!(a.0.abs_diff(b.0) <= 1, "{:?}", got);
                }
            }
        }
    }
}
