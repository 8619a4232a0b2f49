use plimsoll_units::Pages;

use crate::pool::{PoolId, PoolTree};
use crate::vm::Vm;

/// The limits of pools on their VMs' targets, by [`PoolId::index`].
#[derive(Debug)]
pub(crate) struct PoolLimits {
    /// The part of its VMs' targets beyond their entitlements that fits into the pool and the pools
    /// above it.
    parts: Vec<f64>,
    /// The pool or a pool above it has a limit that its VMs could exceed.
    bind: Vec<bool>,
}

/// Sums over a pool's VMs.
#[derive(Clone, Copy, Default)]
struct Sums {
    entitled: Pages,
    wished: Pages,
    limits: Pages,
}

impl Sums {
    fn add(&mut self, other: Self) {
        self.entitled = self.entitled.saturating_add(other.entitled);
        self.wished = self.wished.saturating_add(other.wished);
        self.limits = self.limits.saturating_add(other.limits);
    }
}

impl PoolLimits {
    /// The limits for VMs with the entitlements `entitled`, which fit into all limits, and the
    /// targets `wished`.
    pub(crate) fn new(pools: &PoolTree, vms: &[Vm], entitled: &[Pages], wished: &[Pages]) -> Self {
        let mut sums = vec![Sums::default(); pools.count()];
        for ((vm, &entitled), &wished) in vms.iter().zip(entitled).zip(wished) {
            sums[vm.member.pool.index()].add(Sums { entitled, wished, limits: vm.member.client.limit });
        }
        let (mut parts, mut bind) = (vec![1.0; pools.count()], vec![false; pools.count()]);
        for (id, pool, parent) in pools.leaves_first() {
            let i = id.index();
            if let Some(limit) = pool.limit {
                parts[i] = sums[i].part_within(limit);
                bind[i] = sums[i].limits > limit;
                sums[i].wished = sums[i].wished.min(limit);
                sums[i].limits = sums[i].limits.min(limit);
            }
            let below = sums[i];
            sums[parent.index()].add(below);
        }
        // Parents come before their children.
        for id in pools.ids() {
            if let Some(parent) = pools.parent(id) {
                parts[id.index()] *= parts[parent.index()];
                bind[id.index()] |= bind[parent.index()];
            }
        }
        Self { parts, bind }
    }

    /// The target of a VM in `pool`: `wished`, cut to the limits.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "page counts stay below 2^53 and are never negative"
    )]
    pub(crate) fn within(&self, pool: PoolId, entitled: Pages, wished: Pages) -> Pages {
        let part = self.parts[pool.index()];
        if part >= 1.0 {
            return wished;
        }
        entitled.saturating_add(Pages((wished.saturating_sub(entitled).0 as f64 * part) as u64))
    }

    /// Returns whether the VMs of `pool` could exceed the limit of `pool` or of a pool above it.
    pub(crate) fn bind(&self, pool: PoolId) -> bool {
        self.bind[pool.index()]
    }
}

impl Sums {
    #[expect(clippy::cast_precision_loss, reason = "page counts stay below 2^53")]
    fn part_within(self, limit: Pages) -> f64 {
        if self.wished <= limit {
            return 1.0;
        }
        limit.saturating_sub(self.entitled).0 as f64
            / self.wished.saturating_sub(self.entitled).0.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inflation::Inflation;
    use crate::pool::{NamedPool, Pool};
    use crate::vm::{Driver, Pageable};
    use crate::{Client, Member};

    #[test]
    fn an_inner_limit_leaves_the_outer_pools_other_vms_what_it_keeps_from_its_own() {
        let named = |name: &str, parent: Option<&str>, limit| {
            let pool = Pool { shares: 1, reservation: Pages(0), limit: Some(Pages(limit)), expandable: true };
            NamedPool { name: name.to_owned(), parent: parent.map(str::to_owned), pool }
        };
        let tree = |outer| {
            PoolTree::new(&[named("outer", None, outer), named("inner", Some("outer"), 100)]).unwrap()
        };
        let vm = |pool, limit| {
            let client = Client { reservation: Pages(0), limit: Pages(limit), shares: 1, active: Pages(0) };
            Vm {
                member: Member { client, tax: None, pool },
                size: Pages(limit),
                held: Pages(0),
                wanted: Pages(0),
                target: Pages(0),
                balloon: Pages(0),
                ballooned: Pages::ZERO,
                driver: Driver::Follows,
                spare: None,
                hollow: Pages::ZERO,
                inflation: Inflation::default(),
                lacks: Pages::ZERO,
                pageable: Pageable::default(),
                waited: false,
            }
        };
        let roomy = tree(300);
        let [outer, inner] = ["outer", "inner"].map(|name| roomy.find(name).unwrap());
        let vms = [vm(outer, 200), vm(inner, 256)];
        let within = |tree: &PoolTree| {
            let limits = PoolLimits::new(tree, &vms, &[Pages(50), Pages(50)], &[Pages(200), Pages(256)]);
            let [a, b] = [(outer, 200), (inner, 256)]
                .map(|(pool, wished)| limits.within(pool, Pages(50), Pages(wished)).0);
            (a, b, limits.bind(outer), limits.bind(inner), limits.bind(PoolId::ROOT))
        };
        assert_eq!(within(&roomy), (200, 100, false, true, false));
        // The targets are 200 and 100 beyond 50 each: half of both fits.
        assert_eq!(within(&tree(200)), (125, 75, true, true, false));
    }
}
