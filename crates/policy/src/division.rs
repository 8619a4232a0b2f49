//! The exact division of a host's memory over a tree of resource pools.
//!
//! Min-funding revocation takes the next page from the child of the root with the lowest price,
//! within that pool from the child with the lowest price, and so on down to a VM. The price of a
//! pool is the paper's `rho` of the pages that its VMs hold together: the pool's shares divided by
//! the cost of those pages, 1 for an active and `k` for an idle one (Waldspurger 2002, sections 5.1
//! and 5.3). At rest siblings that no bound holds have the same price, at every level of the tree.
//! Its inverse, the cost per share, is their *water level*.
//!
//! **Bounds.** A VM holds between its reservation and the smaller of limit and size. A pool's
//! *floor* is its reservation. An expandable pool's floor is at least the sum of its children's
//! floors. A pool's *ceiling* is the smaller of its limit and the sum of its children's ceilings. A
//! floor above the ceiling is cut to the ceiling. A floor depends on its own subtree only, so no
//! parameter of a sibling changes the guarantees of a subtree. The part of a pool's reservation
//! beyond those of its children belongs to all of them: it is divided by their shares.
//!
//! **Where reservations do not fit.** The floors of a pool's children may exceed the pool's memory:
//! after the host has lost memory, in a pool that is not expandable, or in a pool whose limit is
//! below its children's reservations. Then each child gets its floor scaled down in the same
//! proportion, shares divide nothing, and a [`Shortfall`] reports it. Pools whose children's floors
//! fit are not affected. A pool that is not expandable may still get enough by its shares. Then
//! nothing is scaled: its children's reservations beyond its own are met while memory is plenty,
//! and never promised.
//!
//! **Every change recomputes all.** An incremental structure is deliberately absent. A change moves
//! the water level and with it the entitlement of every VM that no bound holds. The answer itself
//! is thousands of numbers: writing and rounding them takes a good part of the whole time (`cargo
//! xtask bench policy`: some 4 ms for 10,000 VMs). Estimates of activity change for all VMs in
//! every period anyway, and commands are rare: at one recomputation a second this is 0.4 % of one
//! core. An incremental tree would have to agree with this one to the page for ever.

use plimsoll_units::Pages;

use crate::bounds::{self, EffectiveBounds};
use crate::family::{Child, Family, Kind};
use crate::member::Member;
use crate::pool::{PoolId, PoolTree};
use crate::tax::Tax;

/// The entitlements of all VMs and pools of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct Division {
    /// The memory that was divided.
    pub available: Pages,
    /// The entitlement of each VM, in the order given.
    pub vms: Vec<Pages>,
    /// The sum of the entitlements of each pool's VMs, by [`PoolId::index`]; the first is the root.
    pub pools: Vec<Pages>,
    /// The water level among the children of the root: the cost per share, in active pages. It is
    /// 0 where reservations take everything. Where memory is plenty it is the level at which the
    /// last child reaches its ceiling.
    pub level: f64,
    /// The water level among the children of each pool, by [`PoolId::index`]. It is 0 in a pool
    /// with a [`Shortfall`].
    pub levels: Vec<f64>,
    /// The cause of each VM's entitlement, in the order given.
    pub causes: Vec<Cause>,
    /// The effective bounds of each VM, in the order given.
    pub bounds: Vec<EffectiveBounds>,
    /// Pools whose reservations did not fit; empty on a host that admits only what fits.
    pub shortfalls: Vec<Shortfall>,
}

/// The cause of a VM's entitlement: the nearest thing that would have to change first to raise it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its reservation, above the worth of its shares.
    Reservation,
    /// The smaller of its limit and size: it has all that it may have.
    Limit,
    /// The reservation of a pool above it, which holds the level in that pool above the worth of
    /// the pool's shares.
    PoolReservation(PoolId),
    /// The limit of a pool above it, which holds the level in that pool down.
    PoolLimit(PoolId),
    /// The water level of the host: its shares and those of the pools above it, against all others.
    Level,
    /// Reservations in this pool do not fit; its memory is scaled down. See [`Shortfall`].
    Shortfall(PoolId),
}

/// A pool that has less memory than its children have reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// The pool.
    pub pool: PoolId,
    /// The sum of its children's floors.
    pub reserved: Pages,
    /// The memory that it has.
    pub has: Pages,
}

/// Divides `available` among `members`.
///
/// Every entitlement lies between reservation and limit, and the sum of a pool's entitlements
/// between its floor and ceiling. All entitlements add up to `available` exactly where ceilings and
/// reservations allow it. Takes O(n log n) in the number of VMs, times the depth of the tree.
///
/// # Panics
/// Where a member is in a pool that `pools` does not have.
pub fn divide(available: Pages, tax: Tax, pools: &PoolTree, members: &[Member]) -> Division {
    divide_reserving(available, available, tax, pools, members)
}

/// Divides as [`divide`], with reservations first: where they exceed `available`, their sum is
/// divided instead, up to `most`.
///
/// # Panics
/// As [`divide`].
pub fn divide_reserving(
    available: Pages,
    most: Pages,
    tax: Tax,
    pools: &PoolTree,
    members: &[Member],
) -> Division {
    let root = Family::root(tax, pools, members);
    let available = available.max(Pages(root.floor).min(most));
    Division::of_root(&root, available, members.len(), pools.count())
}

impl Division {
    /// The division of `available` among the children of `root`, with `vms` VMs and `pools` pools.
    pub(crate) fn of_root(root: &Family, available: Pages, vms: usize, pools: usize) -> Self {
        let level = root.level_at(available.0);
        let mut division = Self {
            available,
            vms: vec![Pages::ZERO; vms],
            pools: vec![Pages::ZERO; pools],
            level,
            levels: vec![0.0; pools],
            causes: vec![Cause::Level; vms],
            bounds: bounds::of_root(root, available, vms),
            shortfalls: Vec::new(),
        };
        division.fill(root, PoolId::ROOT, available.0, level, Cause::Level);
        division
    }

    /// Divides `pages` among the children of pool `id` at `level`, and so on down the tree. `cause`
    /// is the cause of the level.
    fn fill(&mut self, family: &Family, id: PoolId, pages: u64, level: f64, cause: Cause) {
        let short = pages < family.floor;
        let (parts, level) = if short {
            let (reserved, has) = (Pages(family.floor), Pages(pages));
            self.shortfalls.push(Shortfall { pool: id, reserved, has });
            (family.guaranteed(pages), 0.0)
        } else {
            (family.whole(pages.min(family.ceiling), level), level)
        };
        self.pools[id.index()] = Pages(parts.iter().sum());
        self.levels[id.index()] = level;
        for (child, part) in family.children.iter().zip(parts) {
            let cause =
                if short { Cause::Shortfall(id) } else { own_cause(child, part, level).unwrap_or(cause) };
            match &child.kind {
                Kind::Vm { index, .. } => (self.vms[*index], self.causes[*index]) = (Pages(part), cause),
                Kind::Pool(pool) => self.fill(&pool.family, pool.id, part, pool.inner_level(part), cause),
            }
        }
    }
}

/// The bound of `child` that makes it hold `pages`; `None`: the water level does.
fn own_cause(child: &Child, pages: u64, level: f64) -> Option<Cause> {
    let (at_ceiling, held_up) =
        (pages >= child.ceiling, pages <= child.floor && child.level_of(pages) > level);
    match &child.kind {
        Kind::Vm { .. } if at_ceiling => Some(Cause::Limit),
        Kind::Vm { .. } => held_up.then_some(Cause::Reservation),
        // Where the ceiling is the sum of its children's, each child is at its own ceiling, which
        // is the nearer cause.
        Kind::Pool(pool) if at_ceiling => Some(Cause::PoolLimit(pool.id)),
        Kind::Pool(pool) => {
            (held_up && child.floor > pool.family.floor).then_some(Cause::PoolReservation(pool.id))
        }
    }
}

#[cfg(test)]
mod tests;
