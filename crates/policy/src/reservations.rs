use std::fmt;

use plimsoll_units::Pages;

use crate::pool::{Pool, PoolId, PoolTree};

/// The promises that a VM takes from its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its pool.
    pub pool: PoolId,
    /// Guest-physical memory.
    pub size: Pages,
    /// The part of `size` that it is guaranteed.
    pub reservation: Pages,
    /// Its memory beside that of its guest; see [`overhead`](fn@crate::overhead).
    pub overhead: Pages,
}

/// All promises of a host: to VMs that run or are about to start, and to its pools.
///
/// **Machine memory.** A VM reserves from its pool. A pool guarantees its own reservation. Where
/// its children reserve more, an *expandable* pool reserves the difference from the pool above it,
/// and so on up to the host; a pool that is not expandable can promise no more. No pool can promise
/// more than its limit. A pool's own reservation counts in full, used or not. ESX does the same,
/// except for overheads: here they are reserved from the host, not from the VM's pool, so that a
/// pool's reservation is guest memory and nothing else.
///
/// **Swap space.** The memory of a VM beyond its guarantee, `size - reservation`, must fit into the
/// swap space, or the VM could not be brought down to its reservation (Waldspurger 2002, section
/// 6.1).
#[derive(Clone, Copy, Debug)]
pub struct Reservations<'a> {
    /// Machine memory for guests and overheads: the budget.
    pub machine: Pages,
    /// Swap space; `None` on a host without any, where VMs need none.
    pub swap: Option<Pages>,
    /// The pools.
    pub pools: &'a PoolTree,
    /// The VMs.
    pub vms: &'a [Claim],
}

/// A promise that cannot be kept, with its numbers. Its text is one line and says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overcommitment {
    /// The resource that is short.
    pub what: Short,
    /// The amount that was promised before.
    pub promised: Pages,
    /// The amount that would be promised.
    pub asked: Pages,
    /// The amount that can be promised.
    pub capacity: Pages,
}

/// A resource that cannot be promised further.
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

/// The promises from a resource, and its amount.
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
    /// Checks whether the host may change its promises to `after`: with one more VM or pool, other
    /// parameters, or a VM in another pool. A change that makes no resource shorter than before is
    /// allowed, so that a host that has lost memory can be relieved step by step.
    ///
    /// # Errors
    /// The first resource that would be short, or shorter than before: the innermost pool first,
    /// then the host's memory, then its swap space.
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

    /// Returns the memory that a VM in `pool` could still reserve, without its overhead.
    ///
    /// # Panics
    /// As [`Self::admits`].
    pub fn unreserved(&self, pool: PoolId) -> Pages {
        self.left_of(&self.promises(), pool)
    }

    /// Returns the same for the host and every pool, by [`PoolId::index`].
    ///
    /// # Panics
    /// As [`Self::admits`].
    pub fn all_unreserved(&self) -> Vec<Pages> {
        let promises = self.promises();
        self.pools.ids().map(|pool| self.left_of(&promises, pool)).collect()
    }

    fn left_of(&self, promises: &[Pages], pool: PoolId) -> Pages {
        let left = |id: PoolId, capacity: Pages| capacity.saturating_sub(promises[id.index()]);
        let mut path: Vec<PoolId> = self.pools.ancestors(pool).collect();
        path.reverse();
        // From the host down: the amount that the pool above would back, and each pool's own.
        path.into_iter().fold(left(PoolId::ROOT, self.machine), |above, id| {
            let Some(pool) = self.pools.get(id).map(|named| named.pool) else { return above };
            let own = left(id, pool.reservation);
            let open = if pool.expandable { own.saturating_add(above) } else { own };
            pool.limit.map_or(open, |limit| open.min(left(id, limit)))
        })
    }

    /// The promises of each pool to its children, by [`PoolId::index`]; those of the host include
    /// the overheads.
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

    /// The bound on the promises of a pool or the host.
    fn bounds(&self, id: PoolId) -> Vec<(Short, Pages)> {
        let Some(named) = self.pools.get(id) else { return vec![(Short::Machine, self.machine)] };
        let rigid = (!named.pool.expandable)
            .then(|| (Short::PoolReservation(named.name.clone()), named.pool.reservation));
        let limit = named.pool.limit.map(|limit| (Short::PoolLimit(named.name.clone()), limit));
        rigid.into_iter().chain(limit).collect()
    }

    /// The amount by which a pool or the host has promised too much.
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

    /// The memory of all VMs beyond their guarantees.
    fn unguaranteed(&self) -> Pages {
        let rest = |vm: &Claim| vm.size.saturating_sub(vm.reservation);
        self.vms.iter().fold(Pages::ZERO, |sum, vm| sum.saturating_add(rest(vm)))
    }
}

/// The amount that a pool with the promises `promised` reserves from the pool above it.
fn claims(pool: &Pool, promised: Pages) -> Pages {
    let wish = if pool.expandable { pool.reservation.max(promised) } else { pool.reservation };
    pool.limit.map_or(wish, |limit| wish.min(limit))
}

#[cfg(test)]
mod tests;
