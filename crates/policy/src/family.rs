//! A pool's children and the division of whole pages among them.
//!
//! A child is a VM or a pool. Each has a floor, a ceiling, and a curve of what it holds over the
//! water level. This file knows one pool at a time; `division.rs` walks down the tree.

use crate::client::Client;
use crate::curve::{Bend, Curve, Point, VmCurve, level_at};
use crate::member::Member;
use crate::pool::{Pool, PoolId, PoolTree};
use crate::tax::Tax;

/// The children of a pool.
pub(crate) struct Family {
    pub(crate) children: Vec<Child>,
    /// The sum of the children's floors.
    pub(crate) floor: u64,
    /// The sum of the children's ceilings.
    pub(crate) ceiling: u64,
}

/// A VM or a pool among its siblings.
pub(crate) struct Child {
    pub(crate) floor: u64,
    pub(crate) ceiling: u64,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    /// The VM at place `index` of all VMs.
    Vm {
        index: usize,
        curve: VmCurve,
    },
    Pool(Box<PoolChild>),
}

/// A pool among its siblings.
pub(crate) struct PoolChild {
    pub(crate) id: PoolId,
    pub(crate) shares: f64,
    pub(crate) family: Family,
    /// The curve of its children.
    curve: Curve,
    /// The part of `curve` that the pool's own bounds allow; `None`: all of it.
    bounded: Option<Curve>,
}

impl PoolChild {
    /// The curve of the pool's pages and costs, seen from its parent.
    fn bounded(&self) -> &Curve {
        self.bounded.as_ref().unwrap_or(&self.curve)
    }

    /// The level among its children when the pool holds `pages`.
    #[expect(clippy::cast_precision_loss, reason = "as in `Child`")]
    pub(crate) fn inner_level(&self, pages: u64) -> f64 {
        self.curve.at_pages(pages as f64).level
    }
}

impl Family {
    /// The children of the root, with the whole tree below them.
    pub(crate) fn root(tax: Tax, pools: &PoolTree, members: &[Member]) -> Self {
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

    /// The children of a root without pools.
    pub(crate) fn flat(tax: Tax, clients: &[Client]) -> Self {
        Self::new(clients.iter().enumerate().map(|(i, client)| Child::vm(i, client, tax)).collect())
    }

    fn new(children: Vec<Child>) -> Self {
        let sum = |part: fn(&Child) -> u64| children.iter().fold(0u64, |sum, c| sum.saturating_add(part(c)));
        let (floor, ceiling) = (sum(|c| c.floor), sum(|c| c.ceiling));
        Self { children, floor, ceiling }
    }

    /// The sums of the children's pages and costs over the level among them.
    fn curve(&self) -> Curve {
        Curve::of_siblings(self.start(), self.bends())
    }

    /// The level at which the children hold `pages` together. It lies on their curve, and is found
    /// without making all of the curve.
    pub(crate) fn level_at(&self, pages: u64) -> f64 {
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

    /// The children's floors, scaled down to `pages` where their sum exceeds it.
    pub(crate) fn guaranteed(&self, pages: u64) -> Vec<u64> {
        if pages < self.floor {
            self.scaled(pages)
        } else {
            self.children.iter().map(|child| child.floor).collect()
        }
    }

    /// The children's floors, scaled down to add up to `pages`.
    fn scaled(&self, pages: u64) -> Vec<u64> {
        let whole = u128::from(self.floor.max(1));
        let scale = |floor: u64| u128::from(floor) * u128::from(pages) / whole;
        let part = |c: &Child| u64::try_from(scale(c.floor)).expect("a part of `pages`, which is 64 bits");
        let mut parts: Vec<u64> = self.children.iter().map(part).collect();
        // Rounding lost less than a page a child: the first children get it.
        let mut missing = pages.saturating_sub(parts.iter().sum());
        for (part, child) in parts.iter_mut().zip(&self.children) {
            if missing > 0 && *part < child.floor {
                *part += 1;
                missing -= 1;
            }
        }
        parts
    }

    /// Each child's whole pages near the water level. They add up to `pages`, which lies between
    /// floor and ceiling.
    pub(crate) fn whole(&self, pages: u64, level: f64) -> Vec<u64> {
        let mut parts: Vec<u64> = self.children.iter().map(|c| c.pages_at(level)).collect();
        // Rounding down leaves less than a page a child, and the level's own error is smaller
        // still: one or two rounds suffice.
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

    /// The children that can take (or give) a page. The child with the lowest number is the next.
    fn candidates(&self, parts: &[u64], add: bool) -> Vec<(f64, usize)> {
        let all = self.children.iter().zip(parts).enumerate();
        if add {
            all.filter(|(_, (c, p))| **p < c.ceiling).map(|(i, (c, p))| (c.level_of(p + 1), i)).collect()
        } else {
            all.filter(|(_, (c, p))| **p > c.floor).map(|(i, (c, p))| (-c.level_of(*p), i)).collect()
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "page counts and shares stay below 2^53; `Family::whole` settles the last page"
)]
impl Child {
    /// The VM at place `index` of all VMs.
    fn vm(index: usize, client: &Client, tax: Tax) -> Self {
        let (floor, ceiling) = (client.reservation.0, client.limit.max(client.reservation).0);
        Self { floor, ceiling, kind: Kind::Vm { index, curve: VmCurve::new(client, tax) } }
    }

    /// Pool `id` with its `children`.
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

    /// The whole pages that it holds at `level`, rounded down.
    fn pages_at(&self, level: f64) -> u64 {
        let pages = match &self.kind {
            Kind::Vm { curve, .. } => curve.pages_at(level),
            Kind::Pool(pool) => pool.bounded().at_cost(level * pool.shares).pages,
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative")]
        let pages = pages as u64;
        pages.clamp(self.floor, self.ceiling)
    }

    /// The level at which it holds `pages`.
    pub(crate) fn level_of(&self, pages: u64) -> f64 {
        match &self.kind {
            Kind::Vm { curve, .. } => curve.level_of(pages as f64),
            Kind::Pool(pool) => pool.bounded().at_pages(pages as f64).cost / pool.shares,
        }
    }
}

#[cfg(test)]
mod tests;
