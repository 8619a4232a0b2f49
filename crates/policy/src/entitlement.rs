//! The division of memory at which min-funding revocation with the idle-memory tax comes to rest.
//!
//! Revocation takes pages from the client with the lowest price `rho = S / (P * (f + k * (1 - f)))`, `k = 1 / (1 - tax)`
//! (Waldspurger 2002, sections 5.1 and 5.3). With `A = f * P` active pages the denominator is what the client pays
//! for its pages: 1 for an active page, `k` for an idle one. At rest all clients that no bound holds pay the same per
//! share, the *water level*. What a client holds at a given level is a piecewise linear, never falling function, so
//! the level at which the pages add up is found exactly by sweeping over the bends of all clients, in O(n log n).

use plimsoll_units::Pages;

/// The tax on idle memory: the fraction of an idle page's worth that its holder forfeits, 0 to 0.99.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tax(f64);

impl Tax {
    /// What ESX charged (Waldspurger 2002, section 5.2) and ESXi still does (`Mem.IdleTax` 75).
    pub const DEFAULT: Self = Self(0.75);
    /// Idle pages cost what active ones do: plain proportional shares.
    pub const NONE: Self = Self(0.0);

    /// A tax of `rate`, or `None` outside 0 to 0.99: at 1 an idle page would cost infinitely much.
    pub fn new(rate: f64) -> Option<Self> {
        (0.0..=0.99).contains(&rate).then_some(Self(rate))
    }

    /// How many times the price of an active page an idle one costs: the paper's `k`.
    fn idle_cost(self) -> f64 {
        1.0 / (1.0 - self.0)
    }
}

/// One claim on memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// What it gets at least. The paper's `min`.
    pub reservation: Pages,
    /// What it gets at most: the smaller of limit and size. Raised to `reservation` where it is below.
    pub limit: Pages,
    /// Its weight; 0 counts as 1.
    pub shares: u64,
    /// Pages that it actively uses.
    pub active: Pages,
}

/// What each client is entitled to, in the order given.
///
/// Every entitlement lies between reservation and limit; they add up to `available` exactly where the limits allow it and
/// the reservations leave it. Where even the reservations exceed `available`, each client gets its reservation scaled down
/// in proportion, which tells the caller that memory was lost after admission.
pub fn entitlements(available: Pages, tax: Tax, clients: &[Client]) -> Vec<Pages> {
    let curves: Vec<Curve> = clients.iter().map(|c| Curve::new(c, tax)).collect();
    let reserved: u128 = clients.iter().map(|c| u128::from(c.reservation.0)).sum();
    if reserved > u128::from(available.0) {
        return clients.iter().map(|c| scale(c.reservation, available, reserved)).collect();
    }
    let limits: u128 = clients.iter().map(|c| u128::from(c.limit.max(c.reservation).0)).sum();
    if limits <= u128::from(available.0) {
        return clients.iter().map(|c| c.limit.max(c.reservation)).collect();
    }
    let level = water_level(available, &curves);
    round(available, level, &curves)
}

fn scale(part: Pages, available: Pages, whole: u128) -> Pages {
    let scaled = u128::from(part.0) * u128::from(available.0) / whole;
    Pages(u64::try_from(scaled).expect("a part of `available`, which is 64 bits"))
}

/// Pages of one client as a function of the water level.
struct Curve {
    min: u64,
    max: u64,
    active: f64,
    shares: f64,
    idle_cost: f64,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "page counts stay far below 2^53; `round` settles the last page"
)]
impl Curve {
    fn new(client: &Client, tax: Tax) -> Self {
        Self {
            min: client.reservation.0,
            max: client.limit.max(client.reservation).0,
            active: client.active.0 as f64,
            shares: client.shares.max(1) as f64,
            idle_cost: tax.idle_cost(),
        }
    }

    /// The level at which the client, unbounded, holds `pages`.
    fn level_of(&self, pages: f64) -> f64 {
        (pages.min(self.active) + self.idle_cost * (pages - self.active).max(0.0)) / self.shares
    }

    /// What the client holds at `level`, within its bounds.
    fn pages_at(&self, level: f64) -> f64 {
        let paid = level * self.shares;
        let pages =
            if paid <= self.active { paid } else { self.active + (paid - self.active) / self.idle_cost };
        pages.clamp(self.min as f64, self.max as f64)
    }

    /// The points at which the slope of `pages_at` changes, with the change.
    fn bends(&self) -> impl Iterator<Item = (f64, f64)> {
        let (min, max) = (self.min as f64, self.max as f64);
        let slope_of =
            |pages: f64| if pages < self.active { self.shares } else { self.shares / self.idle_cost };
        let bend = (self.active > min && self.active < max)
            .then(|| (self.level_of(self.active), self.shares / self.idle_cost - self.shares));
        // Beyond its last bend before the maximum, the slope is that of a page just below it.
        let last = if max <= self.active { self.shares } else { self.shares / self.idle_cost };
        let moves = max > min;
        [Some((self.level_of(min), slope_of(min))), bend, Some((self.level_of(max), -last))]
            .into_iter()
            .flatten()
            .filter(move |_| moves)
    }
}

#[expect(clippy::cast_precision_loss, reason = "as in `Curve`")]
fn water_level(available: Pages, curves: &[Curve]) -> f64 {
    let mut bends: Vec<(f64, f64)> = curves.iter().flat_map(Curve::bends).collect();
    bends.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let target = available.0 as f64;
    let mut held: f64 = curves.iter().map(|c| c.min as f64).sum();
    let (mut level, mut slope) = (0.0, 0.0);
    for (at, change) in bends {
        let reached = held + slope * (at - level);
        if reached >= target && slope > 0.0 {
            break;
        }
        (held, level, slope) = (reached, at, slope + change);
    }
    if slope > 0.0 { level + (target - held) / slope } else { level }
}

/// Whole pages near the water level that add up to `available`.
fn round(available: Pages, level: f64, curves: &[Curve]) -> Vec<Pages> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between min and max, both u64"
    )]
    let mut pages: Vec<u64> = curves.iter().map(|c| c.pages_at(level).floor() as u64).collect();
    let sum: u128 = pages.iter().map(|&p| u128::from(p)).sum();
    let mut missing = i128::from(available.0) - i128::try_from(sum).expect("sums of page counts are small");
    // The floors leave less than a page a client, and the level's own error is smaller still: one or two rounds.
    while missing != 0 {
        let mut order: Vec<usize> = (0..curves.len()).collect();
        #[expect(clippy::cast_precision_loss, reason = "as in `Curve`")]
        let next_price = |i: usize, p: u64| curves[i].level_of(p as f64);
        let before = missing;
        if missing > 0 {
            order.sort_by(|&a, &b| next_price(a, pages[a] + 1).total_cmp(&next_price(b, pages[b] + 1)));
            for i in order {
                if missing > 0 && pages[i] < curves[i].max {
                    pages[i] += 1;
                    missing -= 1;
                }
            }
        } else {
            order.sort_by(|&a, &b| next_price(b, pages[b]).total_cmp(&next_price(a, pages[a])));
            for i in order {
                if missing < 0 && pages[i] > curves[i].min {
                    pages[i] -= 1;
                    missing += 1;
                }
            }
        }
        if missing == before {
            break;
        }
    }
    pages.into_iter().map(Pages).collect()
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
        (0.0..0.95f64).prop_map(Tax)
    }

    /// The paper's algorithm as printed: from everybody at the limit, a page at a time from the lowest price.
    fn revoke_page_by_page(available: u64, tax: Tax, clients: &[Client]) -> Vec<u64> {
        let curves: Vec<Curve> = clients.iter().map(|c| Curve::new(c, tax)).collect();
        let mut pages: Vec<u64> = clients.iter().map(|c| c.limit.0).collect();
        while pages.iter().sum::<u64>() > available {
            let victim =
                (0..clients.len()).filter(|&i| pages[i] > clients[i].reservation.0).max_by(|&a, &b| {
                    curves[a].level_of(pages[a] as f64).total_cmp(&curves[b].level_of(pages[b] as f64))
                });
            match victim {
                Some(i) => pages[i] -= 1,
                None => break,
            }
        }
        pages
    }

    #[test]
    fn figure_7_of_the_paper() {
        // Two VMs of 256 MB, equal shares, 360 MB for them; one idle with about 10 MB active, one busy.
        let mb = 256;
        let vms = [client(0, 256 * mb, 1, 10 * mb), client(0, 256 * mb, 1, 256 * mb)];
        let plain = entitlements(Pages(360 * mb), Tax::NONE, &vms);
        assert_eq!(plain, [Pages(180 * mb), Pages(180 * mb)]);
        let taxed = entitlements(Pages(360 * mb), Tax::DEFAULT, &vms);
        // Equal prices: 10 + 4 * (idle - 10) = busy and idle + busy = 360 give 78 and 282; the busy VM's size stops it at
        // 256. The paper measured about 101 and 243.
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
        fn it_rests_where_revocation_page_by_page_does(available in 0..300u64, tax in any_tax(), vms in any_clients(100)) {
            prop_assume!(vms.iter().map(|c| c.reservation.0).sum::<u64>() <= available);
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
        fn without_tax_activity_does_not_matter(available in 0..6000u64, vms in any_clients(1000)) {
            let with = entitlements(Pages(available), Tax::NONE, &vms);
            let idle: Vec<Client> = vms.iter().map(|c| Client { active: Pages(0), ..*c }).collect();
            let without = entitlements(Pages(available), Tax::NONE, &idle);
            for (a, b) in with.iter().zip(&without) {
                prop_assert!(a.0.abs_diff(b.0) <= 1);
            }
        }
    }
}
