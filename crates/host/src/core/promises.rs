use plimsoll_policy::PoolId;
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_protocol::pool::{Place, PoolDefinition};
use plimsoll_units::Pages;

use super::run::{Phase, Run};
use super::{Core, RunId, limit, overhead, reservation};
use crate::pools::Pools;

/// A pool's part in what is promised.
#[derive(Clone, Copy, Default)]
struct Promise {
    /// Promised to its VMs and not granted yet.
    open: Pages,
    /// Granted to its VMs, their parts of shared frames included.
    granted: Pages,
    /// The most that its VMs may have.
    limits: Pages,
    /// The VM that asks is in it.
    asks: bool,
}

impl Promise {
    fn add(&mut self, child: Self) {
        self.open = self.open.saturating_add(child.open);
        self.granted = self.granted.saturating_add(child.granted);
        self.limits = self.limits.saturating_add(child.limits);
        self.asks |= child.asks;
    }
}

/// What others have been promised.
impl Core {
    /// The part of the ledger that `run` cannot have because it is promised to others, which have not been granted it
    /// yet: what VMs and pools have reserved, and all that those VMs need which are about to start. Among the latter,
    /// first come, first served. What its own pools have reserved beyond their VMs' reservations is there for it, too.
    pub(super) fn withheld_from(&self, run: RunId) -> Pages {
        self.promised(&self.pools, Some(run))
    }

    /// What is promised to all but `run` and has not been granted yet, in a tree of `pools`.
    pub(super) fn promised(&self, pools: &Pools, run: Option<RunId>) -> Pages {
        let tree = pools.tree();
        let ids: Vec<PoolId> = tree.ids().collect();
        let mut promises = vec![Promise::default(); ids.len()];
        for (definition, other) in self.running() {
            let pool = pools.id(&definition.pool).unwrap_or(PoolId::ROOT);
            promises[pool.index()].add(self.promise(run, definition, other));
        }
        // Parents come before their children.
        for id in ids.into_iter().rev() {
            let (Some(parent), Some(pool)) = (tree.parent(id), tree.get(id)) else { continue };
            let mut promise = promises[id.index()];
            if !promise.asks {
                let reserved = pool.pool.reservation.min(promise.limits);
                promise.open = promise.open.max(reserved.saturating_sub(promise.granted));
            }
            promises[parent.index()].add(promise);
        }
        promises[PoolId::ROOT.index()].open
    }

    fn promise(&self, asking: Option<RunId>, definition: &VmDefinition, run: &Run) -> Promise {
        // A part of frames is rounded up: a page less is certainly its own.
        let part = self.part(run.id).saturating_sub(Pages(1));
        let granted = self.ledger.account(run.id).grant.saturating_add(part);
        let queued = |run: RunId| self.run(run).is_some_and(|run| run.phase == Phase::Queued);
        let open = match run.phase {
            _ if Some(run.id) == asking => Pages::ZERO,
            Phase::Queued if asking.is_some_and(|asking| queued(asking) && run.id > asking) => Pages::ZERO,
            Phase::Queued => reservation(definition) + overhead(definition),
            // It will never ask for it.
            _ if !run.takes_part() => Pages::ZERO,
            _ => reservation(definition).saturating_sub(granted),
        };
        Promise { open, granted, limits: limit(definition), asks: Some(run.id) == asking }
    }

    /// What the pools at and above `place` have reserved and their VMs not been granted.
    pub(super) fn reserve_of(&self, place: &Place) -> Pages {
        let reserve = |pool: &PoolDefinition| {
            Pages::ceil(pool.reservation).saturating_sub(self.granted_within(&pool.name))
        };
        self.pools.up_from(place).map(reserve).max().unwrap_or(Pages::ZERO)
    }

    /// What the limits of the pools at and above `place` leave to be granted.
    pub(super) fn room_in(&self, place: &Place) -> Pages {
        let room = |pool: &PoolDefinition| {
            pool.limit.map(|limit| Pages::floor(limit).saturating_sub(self.granted_within(&pool.name)))
        };
        self.pools.up_from(place).filter_map(room).min().unwrap_or(Pages(u64::MAX))
    }
}
