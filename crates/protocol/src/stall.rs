//! Time stalled for memory, in the words of Linux's PSI.

use std::fmt;

use jiff::Timestamp;
use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::Percent;

/// Time stalled for memory.
///
/// Of a VM, as its VMM counts it: a fault is stalled while it waits for a grant or for the VM's
/// swap space, and all of the VM while its processors are held. The daemon counts for no more than
/// the time that passes.
///
/// Of the host, `avg10`, `avg60` and `avg300` are the means over all VMs that run, each of which
/// counts the same; `total_ms` is the sum over all VMs since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StallStatus {
    /// At least one fault of the VM was stalled.
    pub some: StallTime,
    /// The VM stood still: as many faults were stalled as it has processors, or these were held.
    /// Part of `some`.
    pub full: StallTime,
}

/// One kind of stalled time: exponentially weighted averages, and the total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StallTime {
    /// Percent of the last 10 s.
    pub avg10: Percent,
    /// Percent of the last 60 s.
    pub avg60: Percent,
    /// Percent of the last 300 s.
    pub avg300: Percent,
    /// Milliseconds since the VM was started.
    pub total_ms: u64,
}

/// A VM stands still for want of memory: it was stalled in full for more than half of the last 10
/// s, and for more than half of the time between its last two reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Standstill {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub cause: StallCause,
}

/// Why a VM stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum StallCause {
    /// The host is in state low, and holds its processors until it is down to its target.
    Held,
    /// It has what its limit allows, and no page of it can be paged out.
    AtLimit(Bytes),
    /// It has what its limit allows, and pages its own memory in and out.
    PagesAtLimit(Bytes),
    /// It has what the limit of a pool leaves it.
    AtPoolLimit(Bytes),
    /// It waits for memory that it is entitled to, and that others have not given back yet.
    Owed,
    /// It waits for memory beyond its entitlement, and too little is free.
    BeyondEntitlement,
    /// It waits for its swap space.
    Swap,
}

impl fmt::Display for StallCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str(
                "the host is in state low and holds the VM until it is at its target: the guest is stalled. Free memory",
            ),
            Self::AtLimit(limit) => write!(
                f,
                "at its limit ({limit}) and nothing left to page out: the guest is stalled. Raise the limit or add swap space"
            ),
            Self::PagesAtLimit(limit) => write!(
                f,
                "at its limit ({limit}) and busy paging its own memory: the guest is stalled. Raise the limit"
            ),
            Self::AtPoolLimit(most) => write!(
                f,
                "at the most ({most}) that the limit of its pool leaves it: the guest is stalled. Raise that limit"
            ),
            Self::Owed => f.write_str(
                "waiting for memory that it is entitled to, and that other VMs have not given back yet: the guest is stalled",
            ),
            Self::BeyondEntitlement => f.write_str(
                "waiting for memory beyond its entitlement, and too little is free: the guest is stalled. Raise its shares or \
                 its reservation",
            ),
            Self::Swap => {
                f.write_str("waiting for its swap space: the guest is stalled. Give it more memory or faster swap space")
            }
        }
    }
}
