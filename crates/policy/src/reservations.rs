use std::fmt;

use plimsoll_units::Pages;

use crate::pool::{Pool, PoolId, PoolTree};

/// What a VM takes of what a host can promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its pool.
    pub pool: PoolId,
    /// Guest-physical memory.
    pub size: Pages,
    /// What it is guaranteed of it.
    pub reservation: Pages,
    /// What it takes beside; see [`overhead`](fn@crate::overhead).
    pub overhead: Pages,
}

/// Everything that a host promises: to the VMs that run or are about to, and to its pools.
///
/// **Machine memory.** A VM reserves from its pool. A pool stands for its own reservation; where
/// its children reserve more, an *expandable* one reserves the difference from the pool above it,
/// and so on up to the host, and another can promise no more. Nor can a pool promise more than its
/// limit. A pool's own reservation counts in full, used or not. So ESX does it, except for
/// overheads: the host stands for those, not the VM's pool, so that a pool's reservation is guest
/// memory and nothing else.
///
/// **Swap space.** What a VM may have and is not guaranteed, `size - reservation`, must fit into
/// the swap space, or a VM could not be brought down to its reservation (Waldspurger 2002, section
/// 6.1).
#[derive(Clone, Copy, Debug)]
pub struct Reservations<'a> {
    /// Machine memory for guests and overheads: the budget.
    pub machine: Pages,
    /// Swap space; `None`: there is none, and it is not asked for.
    pub swap: Option<Pages>,
    /// The pools.
    pub pools: &'a PoolTree,
    /// The VMs.
    pub vms: &'a [Claim],
}

/// A promise that cannot be kept: who is short, with the numbers. Its text is one line and says
/// what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overcommitment {
    /// What is short.
    pub what: Short,
    /// What was promised before.
    pub promised: Pages,
    /// What would be promised.
    pub asked: Pages,
    /// What there is to promise.
    pub capacity: Pages,
}

/// What cannot stand for more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Short {
    /// The reservation of a pool that is not expandable.
    PoolReservation(String),
    /// The limit of a pool.
    PoolLimit(String),
    /// The host's machine memory.
    Machine,
    /// The host's swap space.
    Swap,
}

impl fmt::Display for Overcommitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (more, capacity) = (self.asked.saturating_sub(self.promised).bytes(), self.capacity.bytes());
        let left = self.capacity.saturating_sub(self.promised).bytes();
        let (what, bound, remedy) = match &self.what {
            Short::PoolReservation(name) => (
                format!("memory reserved from pool {name:?}"),
                "its reservation, which is not expandable",
                "lower the reservation, raise the pool's or make the pool expandable",
            ),
            Short::PoolLimit(name) => (
                format!("memory reserved from pool {name:?}"),
                "its limit",
                "lower the reservation or raise the pool's limit",
            ),
            Short::Machine => (
                "machine memory (reservations and overhead)".to_owned(),
                "the budget",
                "lower a reservation, stop a VM or raise the budget",
            ),
            Short::Swap => (
                "swap space (size - reservation)".to_owned(),
                "the swap space",
                "raise the reservation, lower the size, stop a VM or add swap space",
            ),
        };
        if self.asked > self.promised {
            write!(
                f,
                "it needs {more} more {what}, and {left} of {capacity}, {bound}, is unreserved: {remedy}"
            )
        } else {
            let asked = self.asked.bytes();
            write!(f, "{asked} of {what} is promised already, more than {capacity}, {bound}: {remedy}")
        }
    }
}

impl std::error::Error for Overcommitment {}

/// What is promised of something, and what there is.
#[derive(Clone, Copy)]
struct Account {
    promised: Pages,
    capacity: Pages,
}

impl Account {
    fn short(self) -> Pages {
        self.promised.saturating_sub(self.capacity)
    }
}

impl Reservations<'_> {
    /// Whether the host may go over to promising `after`: with one more VM or pool, with other
    /// parameters of one, with a VM in another pool. Whatever makes nothing shorter than it is
    /// already is allowed, so that a host that has lost memory can be relieved step by step.
    ///
    /// # Errors
    /// What would be short, or shorter than before; the innermost pool first, then the host's
    /// memory, then its swap space.
    ///
    /// # Panics
    /// Where a VM is in a pool that `pools` does not have.
    pub fn admits(&self, after: &Reservations<'_>) -> Result<(), Overcommitment> {
        let (now, then) = (self.promises(), after.promises());
        let before = |id: PoolId| match after.pools.name(id) {
            None => Some(PoolId::ROOT),
            Some(name) => self.pools.find(name),
        };
        for id in after.pools.ids().collect::<Vec<_>>().into_iter().rev() {
            let had = before(id).map_or(Pages::ZERO, |id| now[id.index()]);
            let was_short = before(id).map_or(Pages::ZERO, |id| self.most_short(id, had));
            for (what, capacity) in after.bounds(id) {
                let account = Account { promised: then[id.index()], capacity };
                if account.short() > was_short {
                    return Err(Overcommitment { what, promised: had, asked: account.promised, capacity });
                }
            }
        }
        after.swap_after(self)
    }

    /// What a VM in `pool` could still reserve, its overhead not counted.
    ///
    /// # Panics
    /// As [`Self::admits`].
    pub fn unreserved(&self, pool: PoolId) -> Pages {
        let promises = self.promises();
        let left = |id: PoolId, capacity: Pages| capacity.saturating_sub(promises[id.index()]);
        let mut path: Vec<PoolId> = self.pools.ancestors(pool).collect();
        path.reverse();
        // From the host down: what the pool above would stand for, and what each has of its own.
        path.into_iter().fold(left(PoolId::ROOT, self.machine), |above, id| {
            let Some(pool) = self.pools.get(id).map(|named| named.pool) else { return above };
            let own = left(id, pool.reservation);
            let open = if pool.expandable { own.saturating_add(above) } else { own };
            pool.limit.map_or(open, |limit| open.min(left(id, limit)))
        })
    }

    /// What each pool has promised to its children, by [`PoolId::index`]; the host has promised the
    /// overheads as well.
    fn promises(&self) -> Vec<Pages> {
        let mut promises = vec![Pages::ZERO; self.pools.count()];
        let mut add = |id: PoolId, pages: Pages| {
            promises[id.index()] = promises[id.index()].saturating_add(pages);
            promises[id.index()]
        };
        for vm in self.vms {
            add(vm.pool, vm.reservation);
            add(PoolId::ROOT, vm.overhead);
        }
        for (id, pool, parent) in self.pools.leaves_first() {
            let promised = add(id, Pages::ZERO);
            add(parent, claims(&pool, promised));
        }
        promises
    }

    /// What bounds the promises of a pool or the host.
    fn bounds(&self, id: PoolId) -> Vec<(Short, Pages)> {
        let Some(named) = self.pools.get(id) else { return vec![(Short::Machine, self.machine)] };
        let rigid = (!named.pool.expandable)
            .then(|| (Short::PoolReservation(named.name.clone()), named.pool.reservation));
        let limit = named.pool.limit.map(|limit| (Short::PoolLimit(named.name.clone()), limit));
        rigid.into_iter().chain(limit).collect()
    }

    /// By how much a pool or the host has promised too much.
    fn most_short(&self, id: PoolId, promised: Pages) -> Pages {
        let short = |(_, capacity)| Account { promised, capacity }.short();
        self.bounds(id).into_iter().map(short).max().unwrap_or(Pages::ZERO)
    }

    fn swap_after(&self, before: &Reservations<'_>) -> Result<(), Overcommitment> {
        let Some(capacity) = self.swap else { return Ok(()) };
        let (promised, asked) = (before.unguaranteed(), self.unguaranteed());
        let was_short = before.swap.map_or(Pages::ZERO, |capacity| Account { promised, capacity }.short());
        if (Account { promised: asked, capacity }).short() > was_short {
            return Err(Overcommitment { what: Short::Swap, promised, asked, capacity });
        }
        Ok(())
    }

    /// What all VMs may have and are not guaranteed.
    fn unguaranteed(&self) -> Pages {
        let rest = |vm: &Claim| vm.size.saturating_sub(vm.reservation);
        self.vms.iter().fold(Pages::ZERO, |sum, vm| sum.saturating_add(rest(vm)))
    }
}

/// What a pool that has promised `promised` reserves from the one above it.
fn claims(pool: &Pool, promised: Pages) -> Pages {
    let wish = if pool.expandable { pool.reservation.max(promised) } else { pool.reservation };
    pool.limit.map_or(wish, |limit| wish.min(limit))
}

#[cfg(test)]
#[path = "reservations_tests.rs"]
mod tests;
