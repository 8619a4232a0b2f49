use plimsoll_units::Pages;

use crate::{Cause, EffectiveBounds, Mechanisms, Shortfall, Sizing};

/// What policy decided for a host.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// For each VM, in the order given.
    pub vms: Vec<Decision>,
    /// For each pool, by [`PoolId::index`](crate::PoolId::index); the first is the host itself.
    pub pools: Vec<PoolOutcome>,
    /// What there was to divide: what is left for guests when minFree stays free or, where that is
    /// more, what is reserved.
    pub available: Pages,
    /// What waiting VMs lack of their entitlements.
    pub owed: Pages,
    /// What has to be reclaimed; 0 as long as nothing has.
    pub shortage: Pages,
    /// Memory is reclaimed: the state is soft or worse; or not enough is free for VMs that wait for
    /// what they are entitled to; or not for VMs below their working sets, while others hold idle
    /// memory.
    pub reclaiming: bool,
    /// What reclaims it. Where [`Self::reclaiming`] in a state better than soft, what does so in
    /// soft.
    pub mechanisms: Mechanisms,
    /// Where reservations did not fit; empty in a host that admits only what fits.
    pub shortfalls: Vec<Shortfall>,
}

/// What policy decided for a pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoolOutcome {
    /// What its VMs are entitled to together.
    pub entitlement: Pages,
    /// The sum of its VMs' targets. Never above its limit.
    pub target: Pages,
    /// What its VMs hold.
    pub held: Pages,
    /// The water level among its children: what one share pays, in active pages.
    pub level: f64,
}

/// What policy decided for a VM.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// What it is entitled to.
    pub entitlement: Pages,
    /// What it may have beyond its entitlement because it uses or lacks more, and others leave that
    /// much of theirs.
    pub lent: Pages,
    /// What set the entitlement.
    pub cause: Cause,
    /// What it pays per share for its entitlement, in active pages. Where [`Cause::Level`] set the
    /// entitlement, that is the level of its pool within a page.
    pub pays: f64,
    /// What it is guaranteed and may have at most, the pools above it considered.
    pub bounds: EffectiveBounds,
    /// Its working set: see [`Vm::working_set`](crate::Vm::working_set).
    pub working_set: Pages,
    /// What it may use: its mechanisms steer to it. At least its entitlement, and what it is lent.
    pub target: Pages,
    /// The most that it may be granted before the next decision: its limit or, where a pool above
    /// it has one too, its target.
    pub most: Pages,
    /// The balloon that goes with the target.
    pub balloon: Pages,
    /// Why the balloon has that size.
    pub sizing: Sizing,
    /// What each mechanism is to take back.
    pub reclaim: Reclaim,
    /// What it may hold, what its faults wait for included, before its own pages are compressed and
    /// swapped out.
    pub level: Pages,
    /// Why `level` makes it page; `None`: it does not, as things are.
    pub pages: Option<PagingCause>,
}

/// Why pages of a VM are compressed and swapped out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum PagingCause {
    /// It is above its target, and the state asks for more than its balloon brings.
    AboveTarget,
    /// It is above its target, and others wait for what they are entitled to: see
    /// [`decide`](fn@crate::decide).
    Owed,
    /// It holds the most that it may: what it needs beyond that comes from its own pages, at once.
    AtLimit,
    /// It has waited in vain: what it needs comes from its own pages. A guest that runs slowly is
    /// better than one that stands still until somebody else gives.
    Waited,
}

/// What each mechanism is to take back from a VM, in machine pages. All steer to the same target:
/// what one takes the others need not, so the parts may add up to more than the VM is above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaim {
    /// By inflating its balloon.
    pub balloon: Pages,
    /// By compression, net of what the compressed pages take.
    pub compression: Pages,
    /// By swapping out.
    pub swap: Pages,
    /// Its faults wait until so much has come back.
    pub block: Pages,
}
