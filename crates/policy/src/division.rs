//! The exact division of a host's memory over a tree of resource pools.
//!
//! Min-funding revocation takes the next page from the root's child that pays least per share, and
//! within a pool from that pool's child that pays least per share, down to a VM. A pool's price is
//! the paper's `rho` of what its VMs hold together: its shares divided by the cost of those pages,
//! 1 for an active and `k` for an idle one (Waldspurger 2002, sections 5.1 and 5.3). At rest
//! siblings that no bound holds pay the same per share, at every level of the tree.
//!
//! **Bounds.** A VM holds between its reservation and the smaller of limit and size. A pool's
//! *floor* is its reservation or, where it is expandable and that is more, the sum of its
//! children's floors; its *ceiling* is its limit or, where that is less, the sum of its children's
//! ceilings; a floor above the ceiling is cut to it. A floor depends on nothing outside its own
//! subtree, so that no parameter of a sibling changes what a subtree is guaranteed. A pool's
//! reservation beyond those of its children belongs to all of them: it is divided by their shares.
//!
//! **Where reservations do not fit.** The children's floors of a pool may exceed what the pool has:
//! after the host has lost memory; or in a pool that is not expandable, or whose limit is below
//! what its children reserve. Then each child gets its floor scaled down in the same proportion,
//! nothing is divided by shares, and a [`Shortfall`] tells it. Other pools whose children's floors
//! fit are not touched by it. A pool that is not expandable may still get enough by its shares, and
//! then nothing is scaled: its children's reservations beyond its own are met while memory is
//! plenty, and promised never.
//!
//! **Every change recomputes all.** A structure that takes one VM's change in less is deliberately
//! absent. A change moves the water level and with it the entitlement of every VM that no bound
//! holds: the answer itself is thousands of numbers, and writing and rounding them takes a good
//! part of what all takes (`cargo xtask bench policy`: some 4 ms for 10,000 VMs). Estimates of
//! activity change for all VMs in every period anyway, and commands come far apart: at one
//! recomputation a second this is 0.4 % of one core. An incremental tree would have to agree with
//! this one to the page for ever.

use plimsoll_units::Pages;

use crate::curve::{Bend, Curve, Point, VmCurve, level_at};
use crate::entitlement::{Client, Tax};
use crate::pool::{Pool, PoolId, PoolTree};

/// A VM in a tree of pools.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Member {
    /// Its claim.
    pub client: Client,
    /// A tax of its own; `None`: the host's.
    pub tax: Option<Tax>,
    /// The pool that it is in. It must be one of the tree that is divided over.
    pub pool: PoolId,
}

impl Member {
    /// What it pays per share for `pages`, in active pages: the inverse of the paper's price `rho`
    /// (Waldspurger 2002, section 5.3). At rest the same for all siblings that no bound holds:
    /// their pool's water level. `tax` is the host's.
    #[expect(clippy::cast_precision_loss, reason = "as in `Child`")]
    pub fn pays(&self, tax: Tax, pages: Pages) -> f64 {
        VmCurve::new(&self.client, self.tax.unwrap_or(tax)).level_of(pages.0 as f64)
    }
}

/// Who has what.
#[derive(Clone, Debug, PartialEq)]
pub struct Division {
    /// What was divided.
    pub available: Pages,
    /// What each VM is entitled to, in the order given.
    pub vms: Vec<Pages>,
    /// What the VMs of each pool are entitled to together, by [`PoolId::index`]; the first is the
    /// root.
    pub pools: Vec<Pages>,
    /// The water level among the children of the root: what one share pays, in pages. It is 0 where
    /// nothing is left beyond the reservations, and the level at which the last one has all that it
    /// may hold where memory is plenty.
    pub level: f64,
    /// The water level among the children of each pool, by [`PoolId::index`]. It is 0 in a pool
    /// with a [`Shortfall`].
    pub levels: Vec<f64>,
    /// What set each VM's entitlement, in the order given.
    pub causes: Vec<Cause>,
    /// What each VM is guaranteed and may have at most, in the order given.
    pub bounds: Vec<EffectiveBounds>,
    /// Where reservations did not fit; empty in a host that admits only what fits.
    pub shortfalls: Vec<Shortfall>,
}

/// What set a VM's entitlement: the nearest thing that would have to change first for it to get
/// more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its reservation, above what its shares are worth.
    Reservation,
    /// The smaller of its limit and size: it has all that it may have.
    Limit,
    /// The reservation of a pool above it, which holds the level in that pool above what the pool's
    /// shares are worth.
    PoolReservation(PoolId),
    /// The limit of a pool above it, which holds the level in that pool down.
    PoolLimit(PoolId),
    /// The water level of the host: its shares, and those of the pools above it, against
    /// everybody's.
    Level,
    /// Reservations in this pool do not fit; what it has is scaled down. See [`Shortfall`].
    Shortfall(PoolId),
}

/// A pool that has less than its children have reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// The pool.
    pub pool: PoolId,
    /// The sum of its children's floors.
    pub reserved: Pages,
    /// What it has.
    pub has: Pages,
}

/// What a VM's bounds come to, its ancestors considered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectiveBounds {
    /// The part of its reservation that the pools above it and the host stand for.
    pub reservation: Pages,
    /// The least of its limit, its size and the ceilings of the pools above it.
    pub limit: Pages,
}

const NOTHING: EffectiveBounds = EffectiveBounds { reservation: Pages::ZERO, limit: Pages::ZERO };

/// Divides `available` among `members`.
///
/// Every entitlement lies between reservation and limit, a pool's sum between its floor and
/// ceiling, and all add up to `available` exactly where the ceilings allow it and the reservations
/// leave it. O(n log n) in the number of VMs, times the depth of the tree.
///
/// # Panics
/// Where a member is in a pool that `pools` does not have.
pub fn divide(available: Pages, tax: Tax, pools: &PoolTree, members: &[Member]) -> Division {
    divide_reserving(available, available, tax, pools, members)
}

/// [`divide`], where what is reserved comes first: if it exceeds `available`, it is divided
/// instead, up to `most`.
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
    root.into_division(available, members.len(), pools.count())
}

/// What each VM is guaranteed and may have at most, in the order given.
///
/// # Panics
/// As [`divide`].
pub fn effective_bounds(available: Pages, pools: &PoolTree, members: &[Member]) -> Vec<EffectiveBounds> {
    let mut bounds = vec![NOTHING; members.len()];
    Family::root(Tax::NONE, pools, members).bound(available.0, available.0, &mut bounds);
    bounds
}

/// The children of a pool.
struct Family {
    children: Vec<Child>,
    /// The sums of the children's floors and ceilings.
    floor: u64,
    ceiling: u64,
}

/// A VM or a pool among its siblings.
struct Child {
    floor: u64,
    ceiling: u64,
    kind: Kind,
}

enum Kind {
    Vm { index: usize, curve: VmCurve },
    Pool(Box<PoolChild>),
}

/// A pool among its siblings.
struct PoolChild {
    id: PoolId,
    shares: f64,
    family: Family,
    /// Of the family.
    curve: Curve,
    /// The part of it that the pool's own bounds allow; `None`: all of it.
    bounded: Option<Curve>,
}

impl PoolChild {
    /// What the pool holds and pays, seen from its parent.
    fn bounded(&self) -> &Curve {
        self.bounded.as_ref().unwrap_or(&self.curve)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "page counts and shares stay below 2^53; `Family::whole` settles the last page"
)]
impl Child {
    fn vm(index: usize, client: &Client, tax: Tax) -> Self {
        let (floor, ceiling) = (client.reservation.0, client.limit.max(client.reservation).0);
        Self { floor, ceiling, kind: Kind::Vm { index, curve: VmCurve::new(client, tax) } }
    }

    fn pool(id: PoolId, pool: &Pool, children: Vec<Self>) -> Self {
        let family = Family::new(children);
        let ceiling = pool.limit.map_or(family.ceiling, |limit| limit.0.min(family.ceiling));
        let wish = if pool.expandable { pool.reservation.0.max(family.floor) } else { pool.reservation.0 };
        let floor = wish.min(ceiling);
        let curve = family.curve();
        let bounded = ((floor, ceiling) != (family.floor, family.ceiling))
            .then(|| curve.within(floor as f64, ceiling as f64));
        let shares = pool.shares.max(1) as f64;
        Self { floor, ceiling, kind: Kind::Pool(Box::new(PoolChild { id, shares, family, curve, bounded })) }
    }

    fn cost_of_floor(&self) -> f64 {
        match &self.kind {
            Kind::Vm { curve, .. } => curve.cost_of(curve.min),
            Kind::Pool(pool) => pool.bounded().at_pages(self.floor as f64).cost,
        }
    }

    fn bends(&self, bends: &mut Vec<Bend>) {
        match &self.kind {
            Kind::Vm { curve, .. } => curve.bends(bends),
            Kind::Pool(pool) => pool.bounded().bends(pool.shares, bends),
        }
    }

    /// Whole pages that it holds at `level`, rounded down.
    fn pages_at(&self, level: f64) -> u64 {
        let pages = match &self.kind {
            Kind::Vm { curve, .. } => curve.pages_at(level),
            Kind::Pool(pool) => pool.bounded().at_cost(level * pool.shares).pages,
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative")]
        let pages = pages as u64;
        pages.clamp(self.floor, self.ceiling)
    }

    /// What made it hold `pages`, if that is a bound of its own and not the water level.
    fn cause(&self, pages: u64, level: f64) -> Option<Cause> {
        let (at_ceiling, held_up) =
            (pages >= self.ceiling, pages <= self.floor && self.level_of(pages) > level);
        match &self.kind {
            Kind::Vm { .. } if at_ceiling => Some(Cause::Limit),
            Kind::Vm { .. } => held_up.then_some(Cause::Reservation),
            // Where its children's ceilings make its own, each of them is at its own, which is
            // nearer.
            Kind::Pool(pool) if at_ceiling => Some(Cause::PoolLimit(pool.id)),
            Kind::Pool(pool) => {
                (held_up && self.floor > pool.family.floor).then_some(Cause::PoolReservation(pool.id))
            }
        }
    }

    /// The level at which it holds `pages`.
    fn level_of(&self, pages: u64) -> f64 {
        match &self.kind {
            Kind::Vm { curve, .. } => curve.level_of(pages as f64),
            Kind::Pool(pool) => pool.bounded().at_pages(pages as f64).cost / pool.shares,
        }
    }
}

impl Family {
    fn root(tax: Tax, pools: &PoolTree, members: &[Member]) -> Self {
        let mut counts = vec![0; pools.count()];
        members.iter().for_each(|m| counts[m.pool.index()] += 1);
        let mut children: Vec<Vec<Child>> = counts.into_iter().map(Vec::with_capacity).collect();
        for (i, member) in members.iter().enumerate() {
            children[member.pool.index()].push(Child::vm(i, &member.client, member.tax.unwrap_or(tax)));
        }
        for (id, pool, parent) in pools.leaves_first() {
            let child = Child::pool(id, &pool, std::mem::take(&mut children[id.index()]));
            children[parent.index()].push(child);
        }
        Self::new(std::mem::take(&mut children[PoolId::ROOT.index()]))
    }

    fn new(children: Vec<Child>) -> Self {
        let sum = |part: fn(&Child) -> u64| children.iter().fold(0u64, |sum, c| sum.saturating_add(part(c)));
        let (floor, ceiling) = (sum(|c| c.floor), sum(|c| c.ceiling));
        Self { children, floor, ceiling }
    }

    /// The division of `available` among the root's children, with so many VMs and pools below it.
    fn into_division(self, available: Pages, vms: usize, pools: usize) -> Division {
        let level = self.level_at(available.0);
        let mut division = Division {
            available,
            vms: vec![Pages::ZERO; vms],
            pools: vec![Pages::ZERO; pools],
            level,
            levels: vec![0.0; pools],
            causes: vec![Cause::Level; vms],
            bounds: vec![NOTHING; vms],
            shortfalls: Vec::new(),
        };
        self.divide(PoolId::ROOT, available.0, level, Cause::Level, &mut division);
        self.bound(available.0, available.0, &mut division.bounds);
        division
    }

    /// What the children hold together, and what they pay, over the level among them.
    fn curve(&self) -> Curve {
        Curve::of_siblings(self.start(), self.bends())
    }

    /// The level at which the children hold `pages` together: what the curve says, found without
    /// making all of it.
    fn level_at(&self, pages: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "as in `Child`")]
        level_at(self.start(), self.bends(), pages.clamp(self.floor, self.ceiling) as f64)
    }

    fn start(&self) -> Point {
        #[expect(clippy::cast_precision_loss, reason = "as in `Child`")]
        let pages = self.floor as f64;
        Point { level: 0.0, cost: self.children.iter().map(Child::cost_of_floor).sum(), pages }
    }

    fn bends(&self) -> Vec<Bend> {
        let mut bends = Vec::with_capacity(self.children.len() * 3);
        self.children.iter().for_each(|c| c.bends(&mut bends));
        bends
    }

    /// Divides `pages` among the children, whose level then is `level`, and theirs among theirs.
    /// `cause` is what set the level.
    fn divide(&self, id: PoolId, pages: u64, level: f64, cause: Cause, division: &mut Division) {
        let short = pages < self.floor;
        let (parts, level) = if short {
            let (reserved, has) = (Pages(self.floor), Pages(pages));
            division.shortfalls.push(Shortfall { pool: id, reserved, has });
            (self.scaled(pages), 0.0)
        } else {
            (self.whole(pages.min(self.ceiling), level), level)
        };
        division.pools[id.index()] = Pages(parts.iter().sum());
        division.levels[id.index()] = level;
        for (child, part) in self.children.iter().zip(parts) {
            let cause = if short { Cause::Shortfall(id) } else { child.cause(part, level).unwrap_or(cause) };
            match &child.kind {
                Kind::Vm { index, .. } => {
                    (division.vms[*index], division.causes[*index]) = (Pages(part), cause);
                }
                Kind::Pool(pool) => {
                    #[expect(clippy::cast_precision_loss, reason = "as in `Child`")]
                    let level = pool.curve.at_pages(part as f64).level;
                    pool.family.divide(pool.id, part, level, cause, division);
                }
            }
        }
    }

    /// The children's floors, scaled down to add up to `pages`.
    fn scaled(&self, pages: u64) -> Vec<u64> {
        let whole = u128::from(self.floor.max(1));
        let scale = |floor: u64| u128::from(floor) * u128::from(pages) / whole;
        let part = |c: &Child| u64::try_from(scale(c.floor)).expect("a part of `pages`, which is 64 bits");
        let mut parts: Vec<u64> = self.children.iter().map(part).collect();
        // Less than a page a child was rounded away: the first ones get it.
        let mut missing = pages.saturating_sub(parts.iter().sum());
        for (part, child) in parts.iter_mut().zip(&self.children) {
            if missing > 0 && *part < child.floor {
                *part += 1;
                missing -= 1;
            }
        }
        parts
    }

    /// Whole pages near the water level that add up to `pages`, which lies between floor and
    /// ceiling.
    fn whole(&self, pages: u64, level: f64) -> Vec<u64> {
        let mut parts: Vec<u64> = self.children.iter().map(|c| c.pages_at(level)).collect();
        // Rounding down leaves less than a page a child, and the level's own error is smaller
        // still: one or two rounds.
        loop {
            let sum: u64 = parts.iter().sum();
            let count = usize::try_from(sum.abs_diff(pages)).unwrap_or(usize::MAX);
            if count == 0 {
                return parts;
            }
            let add = sum < pages;
            let mut candidates = self.candidates(&parts, add);
            if candidates.is_empty() {
                return parts;
            }
            if count < candidates.len() {
                candidates.select_nth_unstable_by(count, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                candidates.truncate(count);
            }
            for (_, i) in candidates {
                parts[i] = if add { parts[i] + 1 } else { parts[i] - 1 };
            }
        }
    }

    /// The children that can take (or give) a page; the lower the number, the sooner it is their
    /// turn.
    fn candidates(&self, parts: &[u64], add: bool) -> Vec<(f64, usize)> {
        let all = self.children.iter().zip(parts).enumerate();
        if add {
            all.filter(|(_, (c, p))| **p < c.ceiling).map(|(i, (c, p))| (c.level_of(p + 1), i)).collect()
        } else {
            all.filter(|(_, (c, p))| **p > c.floor).map(|(i, (c, p))| (-c.level_of(*p), i)).collect()
        }
    }

    /// Bounds of the VMs below, where the pools above stand for `backed` of their floors and allow
    /// `limit`.
    fn bound(&self, backed: u64, limit: u64, bounds: &mut [EffectiveBounds]) {
        let parts = if backed < self.floor {
            self.scaled(backed)
        } else {
            self.children.iter().map(|c| c.floor).collect()
        };
        for (child, reservation) in self.children.iter().zip(parts) {
            let limit = limit.min(child.ceiling);
            match &child.kind {
                Kind::Vm { index, .. } => {
                    bounds[*index] = EffectiveBounds { reservation: Pages(reservation), limit: Pages(limit) };
                }
                Kind::Pool(pool) => pool.family.bound(reservation, limit, bounds),
            }
        }
    }
}

/// A division without pools.
pub(crate) fn divide_flat(available: Pages, tax: Tax, clients: &[Client]) -> Vec<Pages> {
    let children = clients.iter().enumerate().map(|(i, c)| Child::vm(i, c, tax)).collect();
    Family::new(children).into_division(available, clients.len(), 1).vms
}

#[cfg(test)]
#[path = "division_tests.rs"]
mod tests;
