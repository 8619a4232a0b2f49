//! The part of each VM's bounds that the pools above it leave in force.

use plimsoll_units::Pages;

use crate::family::{Family, Kind};
use crate::member::Member;
use crate::pool::PoolTree;
use crate::tax::Tax;

/// The bounds of a VM, with those of its ancestors considered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectiveBounds {
    /// The part of its reservation that the pools above it and the host guarantee.
    pub reservation: Pages,
    /// The least of its limit, its size and the ceilings of the pools above it.
    pub limit: Pages,
}

/// Returns the effective bounds of each VM, in the order given.
///
/// # Panics
/// As [`divide`](crate::divide).
pub fn effective_bounds(available: Pages, pools: &PoolTree, members: &[Member]) -> Vec<EffectiveBounds> {
    of_root(&Family::root(Tax::NONE, pools, members), available, members.len())
}

/// The effective bounds of the `vms` VMs below `root`, on a host with `available` to divide.
pub(crate) fn of_root(root: &Family, available: Pages, vms: usize) -> Vec<EffectiveBounds> {
    let mut bounds = vec![EffectiveBounds { reservation: Pages::ZERO, limit: Pages::ZERO }; vms];
    bound(root, available.0, available.0, &mut bounds);
    bounds
}

/// Bounds the VMs below `family`. The pools above guarantee `backed` of its floors and allow
/// `limit`.
fn bound(family: &Family, backed: u64, limit: u64, bounds: &mut [EffectiveBounds]) {
    for (child, reservation) in family.children.iter().zip(family.guaranteed(backed)) {
        let limit = limit.min(child.ceiling);
        match &child.kind {
            Kind::Vm { index, .. } => {
                bounds[*index] = EffectiveBounds { reservation: Pages(reservation), limit: Pages(limit) };
            }
            Kind::Pool(pool) => bound(&pool.family, reservation, limit, bounds),
        }
    }
}
