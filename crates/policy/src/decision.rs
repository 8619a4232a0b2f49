use plimsoll_units::Pages;

use crate::balloon::Sizing;
use crate::bounds::EffectiveBounds;
use crate::division::{Cause, Shortfall};
use crate::mechanisms::Mechanisms;

/// The decisions of policy for a host.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The decision for each VM, in the order given.
    pub vms: Vec<Decision>,
    /// The totals of each pool, by [`PoolId::index`](crate::PoolId::index); the first is the host
    /// itself.
    pub pools: Vec<PoolOutcome>,
    /// The memory that was divided: the larger of the memory for guests less minFree, and the sum
    /// of reservations.
    pub available: Pages,
    /// The memory that waiting VMs lack of their entitlements.
    pub owed: Pages,
    /// The memory that has to be reclaimed.
    pub shortage: Pages,
    /// Memory is reclaimed. There are three reasons: the state is soft or worse; too little is free
    /// for VMs that wait within their entitlements; or too little is free for VMs below their
    /// working sets while other VMs hold idle memory.
    pub reclaiming: bool,
    /// The mechanisms that reclaim it. While [`Self::reclaiming`] they are at least those of state
    /// soft.
    pub mechanisms: Mechanisms,
    /// Pools whose reservations did not fit; empty on a host that admits only what fits.
    pub shortfalls: Vec<Shortfall>,
}

/// The totals of a pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoolOutcome {
    /// The sum of its VMs' entitlements.
    pub entitlement: Pages,
    /// The sum of its VMs' targets, never above its limit.
    pub target: Pages,
    /// The memory that its VMs hold.
    pub held: Pages,
    /// The water level among its children: the cost per share, in active pages.
    pub level: f64,
}

/// The decision of policy for a VM.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// Its entitlement.
    pub entitlement: Pages,
    /// Memory that it is lent beyond its entitlement: it uses or lacks more, and other VMs do not
    /// use all of theirs.
    pub lent: Pages,
    /// The cause of the entitlement.
    pub cause: Cause,
    /// The memory that its shares are worth in its pool: its entitlement or, where its limit or
    /// size holds that down, what it would be without them.
    pub worth: Pages,
    /// The cost per share of its entitlement, in active pages. Where the cause is
    /// [`Cause::Level`], that is the level of its pool within a page.
    pub pays: f64,
    /// Its effective bounds, with the pools above it considered.
    pub bounds: EffectiveBounds,
    /// Its working set: see [`Vm::working_set`](crate::Vm::working_set).
    pub working_set: Pages,
    /// The memory that its mechanisms steer to: at least its entitlement and loan.
    pub target: Pages,
    /// Its largest grant before the next decision: its limit or, if a pool above it has a limit
    /// that binds, its target.
    pub most: Pages,
    /// The balloon that goes with the target.
    pub balloon: Pages,
    /// The reason for the balloon's size.
    pub sizing: Sizing,
    /// The amounts that each mechanism is to take back.
    pub reclaim: Reclaim,
    /// The memory that it may hold and wait for before its own pages are compressed and swapped
    /// out.
    pub level: Pages,
    /// The reason why `level` makes it page; `None`: it does not page now.
    pub pages: Option<PagingCause>,
}

/// The reason why pages of a VM are compressed and swapped out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum PagingCause {
    /// It is above its target, and the state asks for more than its balloon brings.
    AboveTarget,
    /// It is above its target, and other VMs wait for memory within their entitlements: see
    /// [`decide`](fn@crate::decide).
    Owed,
    /// It holds the most that it may: further needs are served from its own pages, at once.
    AtLimit,
    /// It has waited in vain: its needs are served from its own pages. A slow guest is better than
    /// one that stands still until another VM gives.
    Waited,
}

/// The amounts that each mechanism is to take back from a VM, in machine pages. All mechanisms
/// steer to the same target, so their sum may exceed the memory above the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaim {
    /// Taken by its balloon.
    pub balloon: Pages,
    /// Taken by compression, net of the memory of the compressed pages.
    pub compression: Pages,
    /// Taken by swapping out.
    pub swap: Pages,
    /// Its faults wait until this much has come back.
    pub block: Pages,
}
