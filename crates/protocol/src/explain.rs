//! Why a VM has the memory that it has, and which VMs hold the rest.
//!
//! Everything in one explanation is of one moment: the status of the host and of the VMs are those
//! of the ledger, and the decisions follow from them to the page.

use jiff::Timestamp;
pub use plimsoll_policy::Sizing;
use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::control::Sampled;
use crate::place::Place;
use crate::status::{HostStatus, PoolStatus, VmStatus};
use crate::{PoolName, TaxRate, VmName};

/// The host's account, its pools, and how much each VM holds and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HostExplanation {
    /// The moment.
    pub at: Timestamp,
    /// The host's account.
    pub host: HostStatus,
    /// What follows from it.
    pub decision: HostDecision,
    /// All pools, parents before their children.
    pub pools: Vec<PoolExplanation>,
    /// All VMs that run.
    pub vms: Vec<VmShare>,
}

/// Why one VM has the memory that it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VmExplanation {
    /// The moment.
    pub at: Timestamp,
    /// The host's account.
    pub host: HostStatus,
    /// What follows from it.
    pub host_decision: HostDecision,
    /// The VM.
    pub vm: VmStatus,
    /// The estimate of what it uses.
    pub activity: ActivityParts,
    /// The pools that it is in, from the inside out.
    pub pools: Vec<PoolExplanation>,
    /// What was decided for it; `None`: it is off or unreachable, and memory is not divided for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<VmDecision>,
    /// What starting it takes, if it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<ToStart>,
    /// How much more than its entitlement the remedies aim for.
    pub more: Bytes,
    /// Changes that would entitle it to `more`, or to as much of that as the change can bring. Each
    /// is tried alone.
    pub remedies: Vec<Remedy>,
}

/// What was decided for the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HostDecision {
    /// The amounts of free memory below which each state begins.
    pub thresholds: StateThresholds,
    /// The tax on idle memory.
    pub tax: TaxRate,
    /// Largest balloon, in percent of a VM's size.
    pub largest_balloon: u8,
    /// What is divided into entitlements: what is left for guests when minFree stays free.
    pub available: Bytes,
    /// What waiting VMs lack of their entitlements.
    pub owed: Bytes,
    /// Memory is being reclaimed.
    pub reclaiming: bool,
    /// Balloons have not sufficed for too long: pages of all VMs above their targets are compressed
    /// and swapped out, too.
    #[serde(default)]
    pub strained: bool,
    /// What has to be reclaimed.
    pub shortage: Bytes,
    /// The water level among VMs and pools that are in no pool: what one share pays, in bytes of
    /// active memory.
    pub level: f64,
    /// Where reservations do not fit.
    pub shortfalls: Vec<Shortfall>,
}

/// Amounts of free memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StateThresholds {
    /// What reclamation aims for.
    pub high: Bytes,
    /// Below, the state is clear.
    pub clear: Bytes,
    /// Below, the state is soft.
    pub soft: Bytes,
    /// Below, the state is hard.
    pub hard: Bytes,
    /// Below, the state is low.
    pub low: Bytes,
}

/// A pool, or the host itself, that has less than its VMs and pools have reserved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Shortfall {
    /// Where.
    pub place: Place,
    /// The sum of reservations.
    pub reserved: Bytes,
    /// The memory that it has for them.
    pub has: Bytes,
}

/// A pool and what was decided for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PoolExplanation {
    /// The pool.
    pub pool: PoolStatus,
    /// What may still be reserved in it.
    pub unreserved: Bytes,
    /// The sum of its VMs' targets.
    pub target: Bytes,
    /// The water level among what it holds: what one share pays, in bytes of active memory.
    pub level: f64,
}

/// A VM that runs, and what was decided for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VmShare {
    /// The VM.
    pub vm: VmStatus,
    /// What was decided; see [`VmExplanation::decision`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<VmDecision>,
}

/// What was decided for a VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VmDecision {
    /// What it is entitled to.
    pub entitlement: Bytes,
    /// What it may have beyond that because it uses or lacks more, and others leave that much of
    /// what they are entitled to.
    #[serde(default)]
    pub lent: Bytes,
    /// What set the entitlement.
    pub cause: Cause,
    /// The tax on its idle memory that is in force.
    pub tax: TaxRate,
    /// The estimate of what it actively uses.
    pub active: Bytes,
    /// What each of its shares pays for its entitlement, in bytes of active memory: idle memory
    /// costs the tax on top.
    pub pays: f64,
    /// The water level of its pool, in the same unit. The same where it set the entitlement.
    pub level: f64,
    /// What the pools above it and the host stand for.
    pub guaranteed: Bytes,
    /// The least of its limit, its size and what the pools above it allow.
    pub ceiling: Bytes,
    /// What it uses and some headroom: not taken from while others hold idle memory.
    pub working_set: Bytes,
    /// What its mechanisms steer to.
    pub target: Bytes,
    /// The most that it may be granted now.
    pub most: Bytes,
    /// What it is charged above its target: see [`VmStatus::charge`].
    pub above_target: Bytes,
    /// What each mechanism of this host is to take of that.
    pub reclaim: Vec<Mechanism>,
    /// Why its balloon is to have the size that it is to have.
    pub balloon: Sizing,
    /// Memory that is reserved for others and not lent: it is not given to the VM, free or not.
    #[serde(default)]
    pub withheld: Bytes,
    /// The VMs and pools that memory is reserved for, lent or not; the largest first. Empty in the
    /// explanation of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld_for: Vec<Reserved>,
    /// Memory that it leaves free for VMs that have less of what they are entitled to; for all
    /// others, once it has what it is entitled to.
    #[serde(default)]
    pub left: Bytes,
}

/// Memory that a VM or a pool has reserved and not been granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reserved {
    /// The VM or pool.
    pub holder: Holder,
    /// How much.
    pub amount: Bytes,
}

/// A VM or a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Holder {
    /// A VM.
    Vm(VmName),
    /// A pool.
    Pool(PoolName),
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vm(name) => write!(f, "VM {name}"),
            Self::Pool(name) => write!(f, "pool {name}"),
        }
    }
}

/// What one mechanism is to do and has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Mechanism {
    /// Which.
    pub kind: MechanismKind,
    /// What it is still to take back.
    pub to_take: Bytes,
    /// What it has taken so far.
    pub taken: Bytes,
}

/// A mechanism that takes memory back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum MechanismKind {
    /// The guest's balloon driver gives pages up.
    Balloon,
    /// Pages that shrink to half are compressed.
    Compression,
    /// Pages are written to swap space.
    Swap,
    /// Its processors stand still until it is at its target.
    Block,
}

/// What set an entitlement: the bound that would have to change first for it to be more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Its reservation, above what its shares are worth.
    Reservation,
    /// Its limit.
    Limit,
    /// Its size.
    Size,
    /// The reservation of a pool that it is in.
    PoolReservation(PoolName),
    /// The limit of a pool that it is in.
    PoolLimit(PoolName),
    /// The water level of the host: its shares, and those of the pools above it, against those of
    /// all VMs and pools.
    Level,
    /// Reservations there do not fit, and are scaled down.
    Shortfall(Place),
}

/// What makes up the estimate of what a VM actively uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ActivityParts {
    /// The estimate.
    pub active: Bytes,
    /// What sampling shows. Without, as long as a VM has not been sampled for a whole period, it
    /// counts as using all that it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<ActivityEstimate>,
    /// The most that it uses by its guest's own account: what is neither free nor in its balloon.
    /// Samples count up to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Bytes>,
    /// What its faults wait for.
    pub waits: Bytes,
    /// What it lacks by estimate: what its faults wait for, and more the longer they wait.
    pub missing: Bytes,
}

/// What sampling shows of a VM's memory (Waldspurger 2002, section 5.3). The greatest of the three
/// averages counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ActivityEstimate {
    /// The slow average: half of it is the last four periods'.
    pub slow: Bytes,
    /// The fast average: half of it is the last period's.
    pub fast: Bytes,
    /// The fast average with what the period under way has shown so far.
    pub now: Bytes,
    /// The truth lies within this of the greatest with 90 % probability.
    pub margin: Bytes,
    /// Large chunks watched in this period.
    pub chunks: Sampled,
    /// Pages of small chunks watched in this period.
    pub pages: Sampled,
    /// Pages watched in this period inside large chunks that were touched.
    pub inside: Sampled,
    /// What faults brought in during this period.
    pub arrived: Bytes,
}

/// What starting a VM takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ToStart {
    /// Its reservation.
    pub reservation: Bytes,
    /// What its process is charged.
    pub overhead: Bytes,
    /// What its pool, or the host, has not promised.
    pub unreserved: Bytes,
}

/// A change that would give a VM more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Remedy {
    /// The change.
    pub change: Change,
    /// What the VM would then be entitled to.
    pub entitlement: Bytes,
}

/// What changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Its guest uses this much actively.
    Active(Bytes),
    /// It pays no tax on idle memory.
    Untaxed,
    /// Its limit.
    Limit(Bytes),
    /// Its size.
    Size(Bytes),
    /// Its shares.
    Shares(u64),
    /// Its reservation.
    Reservation(Bytes),
    /// The limit of a pool that it is in.
    PoolLimit(PoolName, Bytes),
    /// The shares of a pool that it is in.
    PoolShares(PoolName, u64),
    /// The reservation of a pool that it is in.
    PoolReservation(PoolName, Bytes),
    /// This much more machine memory for guests.
    Memory(Bytes),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_api_do_not_change_with_the_policys_names() {
        for (sizing, word) in [
            (Sizing::NotNeeded, "not-needed"),
            (Sizing::FollowsTarget, "follows-target"),
            (Sizing::WorkingSet, "working-set"),
            (Sizing::Largest, "largest"),
            (Sizing::GuestShort, "guest-short"),
            (Sizing::VmLacks, "vm-lacks"),
            (Sizing::Unhurried, "unhurried"),
            (Sizing::TooSlow, "too-slow"),
            (Sizing::GrowsSlowly, "grows-slowly"),
            (Sizing::NoDriver, "no-driver"),
            (Sizing::Stuck, "stuck"),
        ] {
            assert_eq!(serde_json::to_value(sizing).unwrap(), word);
        }
    }
}
