use plimsoll_units::Pages;

use crate::pool::{PoolId, PoolTree};

/// Reservations of VMs and pools that are not granted yet, summed over the tree of pools.
///
/// It is built once; every change and every question then costs one step for each pool above the
/// VM.
#[derive(Clone, Debug)]
pub(crate) struct Promises(Vec<Node>);

/// The promises to a VM, or to a pool with its children.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Promise {
    /// Promised and not granted yet.
    pub(crate) open: Pages,
    /// Granted.
    pub(crate) granted: Pages,
    /// The part of `granted` that counts for reservations.
    pub(crate) certain: Pages,
    /// The most that it may have.
    pub(crate) limit: Pages,
    /// The part of `granted` that can be taken back at once, without touching reservations.
    pub(crate) returnable: Pages,
}

/// A pool; the first is the host itself.
#[derive(Clone, Copy, Debug)]
struct Node {
    parent: Option<usize>,
    reservation: Pages,
    limit: Option<Pages>,
    /// The sum over the VMs and pools directly in it.
    sum: Promise,
}

impl Node {
    /// Returns the pool's promises, with its own reservation.
    fn whole(&self) -> Promise {
        let open = self.sum.open.max(self.reserved().saturating_sub(self.sum.certain));
        Promise { open, returnable: self.returnable(self.sum.returnable), ..self.sum }
    }

    fn reserved(&self) -> Pages {
        self.reservation.min(self.sum.limit)
    }

    /// Returns the memory that can be taken back without touching the pool's reservation.
    fn returnable(&self, below: Pages) -> Pages {
        below.min(self.sum.certain.saturating_sub(self.reserved()))
    }
}

impl Promises {
    /// Pools without VMs.
    pub(crate) fn new(pools: &PoolTree) -> Self {
        let node = |id: PoolId| {
            let pool = pools.get(id).map(|named| named.pool);
            Node {
                parent: pools.parent(id).map(PoolId::index),
                reservation: pool.map_or(Pages::ZERO, |pool| pool.reservation),
                limit: pool.and_then(|pool| pool.limit),
                sum: Promise::default(),
            }
        };
        Self(pools.ids().map(node).collect())
    }

    /// Replaces the promise `before` of a VM of `pool` by `after`.
    pub(crate) fn change(&mut self, pool: PoolId, mut before: Promise, mut after: Promise) {
        let mut at = Some(pool.index());
        while let Some(node) = at.map(|at| &mut self.0[at]) {
            let whole = node.whole();
            node.sum = node.sum.replace(before, after);
            (before, after, at) = (whole, node.whole(), node.parent);
        }
    }

    /// Returns the promises of the whole host.
    pub(crate) fn all(&self) -> Promise {
        self.0[PoolId::ROOT.index()].sum
    }

    /// Returns the promises to all but a VM of `pool` with the promise `own`, and the memory that
    /// can be taken back from them. Reservations of the VM's pools beyond those of their VMs are
    /// open to it.
    pub(crate) fn of_others(&self, pool: PoolId, own: Promise) -> (Pages, Pages) {
        let (mut open, mut returnable) = (Pages::ZERO, Pages::ZERO);
        let mut below = own;
        for node in self.up_from(pool) {
            open = open.saturating_add(node.sum.open.saturating_sub(below.open));
            let beside = node.sum.returnable.saturating_sub(below.returnable);
            returnable = node.returnable(beside.saturating_add(returnable));
            below = node.whole();
        }
        (open, returnable)
    }

    /// Returns the reservations of pools beyond those inside them, without the pools at and above
    /// `pool`.
    pub(crate) fn of_other_pools(&self, pool: PoolId) -> Vec<(PoolId, Pages)> {
        let mut own = vec![false; self.0.len()];
        let mut at = Some(pool.index());
        while let Some(node) = at {
            (own[node], at) = (true, self.0[node].parent);
        }
        let beyond = |node: &Node| node.whole().open.saturating_sub(node.sum.open);
        let others = self.0.iter().enumerate().filter(|(id, _)| !own[*id]);
        others.map(|(id, node)| (PoolId::of_index(id), beyond(node))).collect()
    }

    /// Returns the grant to a VM of `pool` with which the pools above it reach their reservations.
    pub(crate) fn lacking(&self, pool: PoolId) -> Pages {
        let lacking = |node: &Node| node.reserved().saturating_sub(node.sum.certain);
        self.up_from(pool).map(lacking).max().unwrap_or(Pages::ZERO)
    }

    /// Returns the reservations of the pools at and above `pool` that their VMs are not granted
    /// yet.
    pub(crate) fn reserve(&self, pool: PoolId) -> Pages {
        let reserve = |node: &Node| node.reservation.saturating_sub(node.sum.granted);
        self.up_from(pool).map(reserve).max().unwrap_or(Pages::ZERO)
    }

    /// Returns the largest grant that the limits of the pools at and above `pool` allow; `None`: no
    /// pool has a limit.
    pub(crate) fn room(&self, pool: PoolId) -> Option<Pages> {
        let room = |node: &Node| node.limit.map(|limit| limit.saturating_sub(node.sum.granted));
        self.up_from(pool).filter_map(room).min()
    }

    fn up_from(&self, pool: PoolId) -> impl Iterator<Item = &Node> {
        std::iter::successors(self.0.get(pool.index()), |node| node.parent.map(|at| &self.0[at]))
    }
}

impl Promise {
    fn replace(self, before: Self, after: Self) -> Self {
        let replace =
            |sum: Pages, before: Pages, after: Pages| sum.saturating_sub(before).saturating_add(after);
        Self {
            open: replace(self.open, before.open, after.open),
            granted: replace(self.granted, before.granted, after.granted),
            certain: replace(self.certain, before.certain, after.certain),
            limit: replace(self.limit, before.limit, after.limit),
            returnable: replace(self.returnable, before.returnable, after.returnable),
        }
    }
}
