//! Changes that would give a VM more memory.
//!
//! Every remedy is tried, not derived: memory is divided again with that one change, and the remedy
//! reports the result. A number in a change (of shares, for example) is the least that reaches the
//! goal, to within a hundredth. Where no value reaches the goal, the remedy aims at nine tenths of
//! the largest gain: with shares the last tenth costs more than the first nine. A VM three pools
//! deep takes one to two hundred divisions in all.

use plimsoll_units::Pages;

use crate::client::Client;
use crate::division::{Cause, Division, divide_reserving};
use crate::host::Host;
use crate::member::Member;
use crate::pool::{MAX_POOL_SHARES, Pool, PoolId, PoolTree};
use crate::reservations::{Claim, Reservations};
use crate::rules::Rules;
use crate::tax::Tax;
use crate::vm::Vm;

/// A single change that gives a VM more memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Remedy {
    /// The change.
    pub change: Change,
    /// The VM's entitlement after the change: more than now.
    pub entitlement: Pages,
}

/// The parameter that changes, with its new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The VM actively uses this much: now it pays the tax for idle memory.
    Active(Pages),
    /// The VM is exempt from the tax.
    Untaxed,
    /// The VM's limit, up to its size.
    Limit(Pages),
    /// The VM's size: now it has all of it.
    Size(Pages),
    /// The VM's shares.
    Shares(u64),
    /// The VM's reservation, within the guarantees of the pools above it and the host.
    Reservation(Pages),
    /// The limit of a pool that the VM is in.
    PoolLimit(PoolId, Pages),
    /// The shares of a pool that the VM is in.
    PoolShares(PoolId, u64),
    /// The reservation of a pool that the VM is in, within the guarantees of the pools above that
    /// pool and the host.
    PoolReservation(PoolId, Pages),
    /// Additional machine memory for guests.
    Memory(Pages),
}

/// Returns the changes that would raise the entitlement of VM `index` of `vms` by `more`, or by as
/// much as each change can. Changes without an effect are left out. Changes of the VM come first,
/// then those of its pools from the inside out, then those of the host.
///
/// # Panics
/// Where `vms` has no VM `index`, or a VM is in a pool that `pools` does not have.
pub fn remedies(
    rules: &Rules,
    host: &Host,
    pools: &PoolTree,
    vms: &[Vm],
    index: usize,
    more: Pages,
) -> Vec<Remedy> {
    let members: Vec<Member> = vms.iter().map(|vm| vm.member).collect();
    let claim = |vm: &Vm| Claim {
        pool: vm.member.pool,
        size: vm.size,
        reservation: vm.member.client.reservation,
        overhead: Pages::ZERO,
    };
    let claims: Vec<Claim> = vms.iter().map(claim).collect();
    let promises = Reservations { machine: host.for_guests, swap: None, pools, vms: &claims };
    let (available, most, tax) = (host.available(), host.for_guests, rules.tax);
    let situation = Situation { available, most, tax, pools, members: &members, promises, index };
    let now = situation.divide(pools, &members);
    let case = Case {
        entitlement: now.vms[index],
        cause: now.causes[index],
        shortfalls: now.shortfalls.len(),
        goal: now.vms[index].saturating_add(more),
        size: vms[index].size,
        situation,
    };
    case.of_the_vm().into_iter().chain(case.of_its_pools()).chain(case.of_the_host()).collect()
}

/// A host and one of its VMs.
struct Situation<'a> {
    available: Pages,
    /// The most that is divided, where reservations ask for it.
    most: Pages,
    tax: Tax,
    pools: &'a PoolTree,
    members: &'a [Member],
    promises: Reservations<'a>,
    index: usize,
}

impl Situation<'_> {
    fn divide(&self, pools: &PoolTree, members: &[Member]) -> Division {
        divide_reserving(self.available, self.most, self.tax, pools, members)
    }

    fn with_vm(&self, change: impl FnOnce(&mut Member)) -> Division {
        let mut members = self.members.to_vec();
        change(&mut members[self.index]);
        self.divide(self.pools, &members)
    }

    fn with_client(&self, change: impl FnOnce(&mut Client)) -> Division {
        self.with_vm(|member| change(&mut member.client))
    }

    fn with_pool(&self, id: PoolId, pool: Pool) -> Option<Division> {
        let pools = self.pools.with(id, pool);
        // A pool's reservation has to be admitted too.
        self.promises.admits(&Reservations { pools: &pools, ..self.promises }).ok()?;
        Some(self.divide(&pools, self.members))
    }

    fn with_memory(&self, more: u64) -> Division {
        let (available, most) =
            (self.available.saturating_add(Pages(more)), self.most.saturating_add(Pages(more)));
        divide_reserving(available, most, self.tax, self.pools, self.members)
    }
}

/// The entitlement now and the goal.
struct Case<'a> {
    situation: Situation<'a>,
    entitlement: Pages,
    cause: Cause,
    shortfalls: usize,
    goal: Pages,
    size: Pages,
}

impl Case<'_> {
    fn of_the_vm(&self) -> Vec<Remedy> {
        let Member { client, tax, .. } = self.situation.members[self.situation.index];
        let taxed = tax.unwrap_or(self.situation.tax) != Tax::NONE && client.active < self.entitlement;
        let active = taxed.then(|| {
            let active = self.goal.min(client.limit);
            self.tried(Change::Active(active), &self.situation.with_client(|c| c.active = active))
        });
        let untaxed =
            taxed.then(|| self.tried(Change::Untaxed, &self.situation.with_vm(|m| m.tax = Some(Tax::NONE))));
        let bound = (self.cause == Cause::Limit).then(|| self.larger(client.limit));
        let shares = self.least(client.shares.max(1), MAX_POOL_SHARES, &|shares| {
            Some((Change::Shares(shares), self.situation.with_client(|c| c.shares = shares)))
        });
        [active, untaxed, bound, Some(shares), Some(self.reserved(&client))]
            .into_iter()
            .flatten()
            .flatten()
            .collect()
    }

    /// A larger limit or, where the limit is the size already, a larger size.
    fn larger(&self, limit: Pages) -> Option<Remedy> {
        let (bound, change) = if limit < self.size {
            let limit = self.goal.min(self.size);
            (limit, Change::Limit(limit))
        } else {
            (self.goal, Change::Size(self.goal))
        };
        self.tried(change, &self.situation.with_client(|c| c.limit = bound))
    }

    /// A reservation of the goal, or as much of it as the pools above the VM and the host can
    /// guarantee.
    fn reserved(&self, client: &Client) -> Option<Remedy> {
        let attempt = |reservation: u64| {
            let reservation = Pages(reservation);
            let division = self.situation.with_client(|c| c.reservation = reservation);
            // A reservation that the pools above do not back guarantees nothing.
            let stands = division.bounds[self.situation.index].reservation >= reservation;
            stands.then(|| self.tried(Change::Reservation(reservation), &division)).flatten()
        };
        let goal = self.goal.min(client.limit).0;
        attempt(goal).or_else(|| {
            let (most, _) = bisect(self.entitlement.0, goal, |reservation| attempt(reservation).is_none())?;
            attempt(most)
        })
    }

    fn of_its_pools(&self) -> Vec<Remedy> {
        let pools = self.situation.pools;
        let id = self.situation.members[self.situation.index].pool;
        let each = |id: PoolId| {
            let pool = pools.get(id).map(|named| named.pool)?;
            Some([self.pool_limit(id, pool), self.pool_shares(id, pool), self.pool_reservation(id, pool)])
        };
        pools.ancestors(id).filter_map(each).flatten().flatten().collect()
    }

    fn pool_limit(&self, id: PoolId, pool: Pool) -> Option<Remedy> {
        let limit = pool.limit.filter(|_| self.cause == Cause::PoolLimit(id))?;
        self.least(limit.0, self.situation.available.0, &|limit| {
            let limit = Pages(limit);
            let pool = Pool { limit: Some(limit), ..pool };
            Some((Change::PoolLimit(id, limit), self.situation.with_pool(id, pool)?))
        })
    }

    fn pool_shares(&self, id: PoolId, pool: Pool) -> Option<Remedy> {
        self.least(pool.shares, MAX_POOL_SHARES, &|shares| {
            Some((Change::PoolShares(id, shares), self.situation.with_pool(id, Pool { shares, ..pool })?))
        })
    }

    fn pool_reservation(&self, id: PoolId, pool: Pool) -> Option<Remedy> {
        let most = pool.limit.unwrap_or(self.situation.available).min(self.situation.available);
        self.least(pool.reservation.0, most.0, &|reservation| {
            let reservation = Pages(reservation);
            let pool = Pool { reservation, ..pool };
            Some((Change::PoolReservation(id, reservation), self.situation.with_pool(id, pool)?))
        })
    }

    fn of_the_host(&self) -> Option<Remedy> {
        let limits = self.situation.members.iter().map(|m| m.client.limit.max(m.client.reservation));
        let most = limits.fold(Pages::ZERO, Pages::saturating_add).saturating_sub(self.situation.available);
        self.least(0, most.0, &|more| Some((Change::Memory(Pages(more)), self.situation.with_memory(more))))
    }

    /// The remedy that consists of `change`, if it has an effect.
    fn tried(&self, change: Change, division: &Division) -> Option<Remedy> {
        let entitlement = division.vms[self.situation.index];
        let helps = entitlement > self.entitlement && division.shortfalls.len() <= self.shortfalls;
        helps.then_some(Remedy { change, entitlement })
    }

    /// The least value from `now` to `most` that reaches the goal, or nine tenths of the largest
    /// gain. A larger value gains more, until it takes too much from others and is no remedy.
    /// `change` returns `None` where a value is not admitted.
    fn least(
        &self,
        now: u64,
        most: u64,
        change: &dyn Fn(u64) -> Option<(Change, Division)>,
    ) -> Option<Remedy> {
        let attempt = |value: u64| change(value).and_then(|(change, division)| self.tried(change, &division));
        let fits = |value: u64| {
            change(value).is_some_and(|(_, division)| division.shortfalls.len() <= self.shortfalls)
        };
        if most <= now {
            return None;
        }
        let most = if fits(most) { most } else { bisect(now, most, |value| !fits(value))?.0 };
        let reach = attempt(most)?.entitlement;
        let tenth = Pages(reach.saturating_sub(self.entitlement).0 / 10);
        let goal = if reach < self.goal { reach.saturating_sub(tenth) } else { self.goal };
        let reaches = |value: u64| attempt(value).is_some_and(|remedy| remedy.entitlement >= goal);
        // Doubling first: a sufficient value is mostly near, and the largest value far.
        let mut low = now;
        let mut step = now.max(most / 1024).max(1);
        let high = loop {
            let next = low.saturating_add(step).min(most);
            if next == most || reaches(next) {
                break next;
            }
            (low, step) = (next, step.saturating_mul(2));
        };
        let (_, least) = bisect(low, high, reaches)?;
        attempt(least)
    }
}

/// Two values within a hundredth of each other: the first does not have the property; the second
/// has it, as `high` does. `low` is taken not to have it.
fn bisect(mut low: u64, mut high: u64, has: impl Fn(u64) -> bool) -> Option<(u64, u64)> {
    while high - low > 1 && high - low > high / 100 {
        let middle = low + (high - low) / 2;
        if has(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    (low < high).then_some((low, high))
}

#[cfg(test)]
mod tests;
