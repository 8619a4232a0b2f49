//! Loans of the parts of entitlements that VMs do not use, to VMs that use or lack more than
//! theirs.
//!
//! Min-funding revocation takes pages from VMs that hold them (Waldspurger 2002, section 5.1). A VM
//! that holds less than its entitlement and asks for nothing gives no memory and needs none. If
//! that part were kept for it, VMs that lack memory would stand still although the memory is
//! unused. So it is lent to VMs that use or lack memory beyond their entitlements, by shares and up
//! to their use and lack. Loans go to siblings first, the rest to the siblings of their pool, and
//! so on up the tree, within the limits of all pools.
//!
//! A borrower may hold its loan, and memory is reclaimed from other VMs for it, until the lender
//! asks. The lender's entitlement stays: its faults are served from free memory, and the loan
//! shrinks with the next decision. Reservations are not lent here: [`Grants`](crate::Grants) lends
//! them where they come back at once.

use plimsoll_units::Pages;

use crate::grants::CIRCULATING;
use crate::pool::{PoolId, PoolTree};
use crate::vm::{Driver, Vm};

/// The memory that VMs may have, loans considered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lending {
    /// Entitlements and loans.
    pub(crate) claims: Vec<Pages>,
    /// Claims without the parts that VMs leave. They fit into all limits that entitlements fit
    /// into.
    pub(crate) standing: Vec<Pages>,
}

impl Lending {
    /// The loans among VMs with the entitlements `entitled`, which fit into the limits of all
    /// pools.
    pub(crate) fn new(pools: &PoolTree, vms: &[Vm], entitled: &[Pages]) -> Self {
        let lacks = vms.iter().zip(entitled).map(|(vm, &has)| beyond(vm, has)).collect::<Vec<_>>();
        if lacks.iter().all(|&lack| lack == Pages::ZERO) {
            return Self { claims: entitled.to_vec(), standing: entitled.to_vec() };
        }
        let left = vms.iter().zip(entitled).map(|(vm, &has)| leaves(vm, has));
        let standing = entitled.iter().zip(left.clone()).map(|(&has, left)| has - left).collect();
        let mut market = Market::new(pools, vms, standing, lacks);
        market.settle(PoolId::ROOT, &left.collect::<Vec<_>>());
        let standing = market.standing;
        let claims = entitled.iter().zip(&standing).map(|(&has, &stands)| has.max(stands)).collect();
        Self { claims, standing }
    }
}

/// The memory that a VM holds and lacks.
fn asks_for(vm: &Vm) -> Pages {
    vm.held.saturating_add(lacks(vm))
}

fn lacks(vm: &Vm) -> Pages {
    vm.lacks.max(vm.wanted)
}

/// The memory that a VM uses and lacks beyond its entitlement. Use counts too: if a loan were
/// called back as soon as its VM lacks nothing, the VM would lack it again.
fn beyond(vm: &Vm, entitled: Pages) -> Pages {
    let asks = vm.held.min(vm.member.client.active).saturating_add(lacks(vm));
    // A VM gains nothing by a balloon that does not follow.
    match vm.driver {
        Driver::Stuck => Pages::ZERO,
        Driver::Absent | Driver::Follows => asks.min(vm.member.client.limit).saturating_sub(entitled),
    }
}

/// The part of its entitlement that a VM leaves. A VM that wants it after all gets a few chunks at
/// once, and the rest with the next decision.
fn leaves(vm: &Vm, entitled: Pages) -> Pages {
    let keeps = asks_for(vm).saturating_add(CIRCULATING).max(vm.member.client.reservation);
    entitled.saturating_sub(keeps)
}

/// Loans while they are being made.
struct Market<'a> {
    pools: &'a PoolTree,
    vms: &'a [Vm],
    /// The VMs and the pools in each pool, by [`PoolId::index`].
    members: Vec<Vec<usize>>,
    below: Vec<Vec<PoolId>>,
    standing: Vec<Pages>,
    /// The memory that each VM still lacks.
    lacks: Vec<Pages>,
}

/// A borrower: a VM, or the VMs in a pool.
#[derive(Clone, Copy)]
enum Borrower {
    Vm(usize),
    Pool(PoolId),
}

impl<'a> Market<'a> {
    fn new(pools: &'a PoolTree, vms: &'a [Vm], standing: Vec<Pages>, lacks: Vec<Pages>) -> Self {
        let mut members = vec![Vec::new(); pools.count()];
        for (i, vm) in vms.iter().enumerate() {
            members[vm.member.pool.index()].push(i);
        }
        let mut below = vec![Vec::new(); pools.count()];
        for id in pools.ids() {
            if let Some(parent) = pools.parent(id) {
                below[parent.index()].push(id);
            }
        }
        Self { pools, vms, members, below, standing, lacks }
    }

    /// Lends the memory that VMs of a pool have `left`, inside the pool first. Returns the rest
    /// that the pool has not reserved.
    fn settle(&mut self, pool: PoolId, left: &[Pages]) -> Pages {
        let mut pot = self.members[pool.index()].iter().map(|&i| left[i]).sum::<Pages>();
        for at in 0..self.below[pool.index()].len() {
            let child = self.below[pool.index()][at];
            pot = pot.saturating_add(self.settle(child, left));
        }
        pot -= self.lend(pool, pot);
        let reserved = self.pools.get(pool).map_or(Pages::ZERO, |named| named.pool.reservation);
        pot.min(self.stands(pool).saturating_add(pot).saturating_sub(reserved))
    }

    /// Lends up to `most` to the VMs in a pool that lack memory. Returns the sum of the loans.
    fn lend(&mut self, pool: PoolId, most: Pages) -> Pages {
        let vms = self.members[pool.index()].iter().map(|&i| Borrower::Vm(i));
        let pools = self.below[pool.index()].iter().map(|&id| Borrower::Pool(id));
        let mut borrowers: Vec<(u64, u64, Borrower)> = vms
            .chain(pools)
            .map(|borrower| (self.shares(borrower), self.need(borrower).0, borrower))
            .filter(|&(_, need, _)| need > 0)
            .collect();
        // The smallest needs for their shares come first: the rest is for the others.
        borrowers
            .sort_by(|a, b| (u128::from(a.1) * u128::from(b.0)).cmp(&(u128::from(b.1) * u128::from(a.0))));
        let mut shares: u128 = borrowers.iter().map(|&(shares, ..)| u128::from(shares)).sum();
        let mut left = most.0;
        for (weight, need, borrower) in borrowers {
            let fair = u128::from(left) * u128::from(weight) / shares.max(1);
            let part = Pages(need.min(u64::try_from(fair).unwrap_or(u64::MAX)));
            shares -= u128::from(weight);
            left -= match borrower {
                Borrower::Pool(id) => self.lend(id, part).0,
                Borrower::Vm(i) => {
                    self.standing[i] += part;
                    self.lacks[i] -= part;
                    part.0
                }
            };
        }
        most - Pages(left)
    }

    fn shares(&self, borrower: Borrower) -> u64 {
        match borrower {
            Borrower::Vm(i) => self.vms[i].member.client.shares,
            Borrower::Pool(id) => self.pools.get(id).map_or(1, |named| named.pool.shares),
        }
    }

    /// The memory that a borrower lacks and may have.
    fn need(&self, borrower: Borrower) -> Pages {
        match borrower {
            Borrower::Vm(i) => self.lacks[i],
            Borrower::Pool(id) => {
                let vms = self.members[id.index()].iter().map(|&i| self.lacks[i]);
                let pools = self.below[id.index()].iter().map(|&id| self.need(Borrower::Pool(id)));
                let lacks = vms.chain(pools).fold(Pages::ZERO, Pages::saturating_add);
                let limit = self.pools.get(id).and_then(|named| named.pool.limit);
                limit.map_or(lacks, |limit| lacks.min(limit.saturating_sub(self.stands(id))))
            }
        }
    }

    /// The sum of `standing` over the VMs of a pool.
    fn stands(&self, pool: PoolId) -> Pages {
        let vms = self.members[pool.index()].iter().map(|&i| self.standing[i]);
        let pools = self.below[pool.index()].iter().map(|&id| self.stands(id));
        vms.chain(pools).fold(Pages::ZERO, Pages::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plimsoll_units::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::Rules;
    use crate::client::Client;
    use crate::division::divide_reserving;
    use crate::host::Host;
    use crate::inflation::Inflation;
    use crate::member::Member;
    use crate::pool::{NamedPool, Pool, PoolId};
    use crate::state::{State, Thresholds};
    use crate::vm::Pageable;

    fn mib(n: u64) -> Pages {
        Pages::floor(Bytes::mib(n))
    }

    fn vm(held: u64, active: u64, lacks: u64) -> Vm {
        let client = Client { reservation: Pages::ZERO, limit: mib(256), shares: 1, active: mib(active) };
        Vm {
            member: Member { client, tax: None, pool: PoolId::ROOT },
            size: mib(256),
            held: mib(held),
            wanted: Pages::ZERO,
            target: mib(256),
            balloon: Pages::ZERO,
            ballooned: Pages::ZERO,
            driver: Driver::Follows,
            spare: None,
            hollow: Pages::ZERO,
            inflation: Inflation::default(),
            lacks: mib(lacks),
            pageable: Pageable::default(),
            waited: false,
        }
    }

    fn lending(pools: &PoolTree, vms: &[Vm]) -> (Vec<Pages>, Lending) {
        let host = Host {
            for_guests: mib(640),
            free: Pages::ZERO,
            withheld: Pages::ZERO,
            thresholds: Thresholds::of_min_free(Bytes::mib(40)),
            state: State::Clear,
            strained: false,
            elapsed: Duration::from_secs(1),
        };
        let members: Vec<Member> = vms.iter().map(|vm| vm.member).collect();
        let rules = Rules::default();
        let division = divide_reserving(host.available(), host.for_guests, rules.tax, pools, &members);
        let lending = Lending::new(pools, vms, &division.vms);
        (division.vms, lending)
    }

    #[test]
    fn a_vm_that_lacks_memory_gets_what_others_leave() {
        let others = [vm(160, 220, 200), vm(120, 100, 0), vm(70, 100, 0)];
        let (entitled, lending) = lending_with(vm(150, 220, 200), &others);
        assert!(entitled[2] <= mib(120) && entitled[3] > mib(74), "{entitled:?}");
        let left = entitled[3] - mib(70) - CIRCULATING;
        let lent = lending.claims[0] + lending.claims[1] - entitled[0] - entitled[1];
        assert!(lent.0.abs_diff(left.0) <= 1, "{lent:?} of {left:?}");
        assert_eq!(lending.claims[2..], entitled[2..], "a lender may still claim its own");
        let (entitled, lending) = lending_with(vm(180, 220, 9), &others);
        assert!(entitled[0] < mib(189));
        assert_eq!(lending.claims[0], mib(189), "no more than it lacks");
        // A VM that lacks nothing gets no loan.
        let (entitled, lending) =
            lending_with(vm(200, 220, 0), &[vm(150, 100, 0), vm(70, 100, 0), vm(150, 100, 0)]);
        assert_eq!((&lending.claims, &lending.standing), (&entitled, &entitled));
    }

    fn lending_with(first: Vm, others: &[Vm]) -> (Vec<Pages>, Lending) {
        lending(&PoolTree::default(), &[&[first], others].concat())
    }

    #[test]
    fn what_is_reserved_is_not_lent_here() {
        let mut reserved = vm(10, 10, 0);
        reserved.member.client.reservation = mib(120);
        let (_, lending) = lending_with(vm(250, 256, 30), &[reserved, vm(200, 200, 0)]);
        assert_eq!(lending.standing[1], mib(120));
    }

    #[test]
    fn a_loan_stays_within_the_limit_of_a_pool() {
        let pool = Pool { shares: 1, reservation: Pages::ZERO, limit: Some(mib(200)), expandable: true };
        let pools = PoolTree::new(&[NamedPool { name: "p".to_owned(), parent: None, pool }]).unwrap();
        let within = |mut vm: Vm| {
            vm.member.pool = pools.ids().last().unwrap();
            vm
        };
        let vms = [within(vm(120, 200, 60)), within(vm(20, 20, 0)), vm(50, 10, 0)];
        let (entitled, lending) = lending(&pools, &vms);
        assert!(lending.claims[0] > entitled[0]);
        assert!(lending.standing[0] + lending.standing[1] <= mib(200));
    }

    #[test]
    fn what_a_pool_has_reserved_stays_within_it() {
        let pool = Pool { shares: 1, reservation: mib(300), limit: None, expandable: true };
        let pools = PoolTree::new(&[NamedPool { name: "p".to_owned(), parent: None, pool }]).unwrap();
        let quiet = |held| {
            let mut vm = vm(held, 20, 0);
            vm.member.pool = pools.ids().last().unwrap();
            vm
        };
        let outsider = vm(250, 256, 100);
        let (entitled, all) = lending(&pools, &[quiet(20), quiet(20), outsider, vm(240, 256, 0)]);
        assert!(entitled[0] + entitled[1] >= mib(300), "{entitled:?}");
        assert!(all.standing[2] - entitled[2] <= entitled[0] + entitled[1] - mib(300));
        // A VM of the pool may have the memory that another VM of the pool leaves.
        let mut busy = quiet(200);
        busy.lacks = mib(50);
        let (entitled, all) = lending(&pools, &[quiet(20), busy, outsider, vm(240, 256, 0)]);
        assert!(all.claims[1] >= entitled[1]);
    }

    #[test]
    fn idle_memory_is_not_borrowed_for() {
        let idle = vm(250, 60, 4);
        let (entitled, lending) = lending_with(idle, &[vm(200, 200, 30), vm(10, 10, 0)]);
        assert!(beyond(&idle, entitled[0]) == Pages::ZERO, "{entitled:?}");
        assert_eq!(lending.claims[0], entitled[0]);
        assert!(lending.claims[1] >= entitled[1]);
    }

    proptest! {
        #[test]
        fn loans_come_from_what_is_left(fleet in prop::collection::vec((0u64..256, 0u64..256, prop::bool::ANY), 1..12)) {
            let vms: Vec<Vm> = fleet.iter().map(|&(held, active, lacks)| vm(held, active, u64::from(lacks) * 30)).collect();
            let (entitled, lending) = lending(&PoolTree::default(), &vms);
            prop_assert!(lending.standing.iter().copied().fold(Pages::ZERO, Pages::saturating_add) <= mib(600));
            for (i, vm) in vms.iter().enumerate() {
                prop_assert!(lending.claims[i] >= entitled[i]);
                prop_assert!(lending.claims[i] == entitled[i] || beyond(vm, entitled[i]) > Pages::ZERO);
                // No VM lends memory that it holds.
                prop_assert!(lending.standing[i] >= entitled[i].min(vm.held));
            }
        }
    }
}
