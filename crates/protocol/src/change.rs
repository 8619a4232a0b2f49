//! What an operator changes of a VM or a pool after it was defined: new values for some keys.

use std::collections::BTreeMap;

use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::burst::Burst;
use crate::disk_name::DiskName;
use crate::link_state::LinkState;
use crate::place::Place;
use crate::shares::Shares;
use crate::sharing::Sharing;
use crate::{LabelKey, LabelValue, OrNone, StartDelay, StartOrder, TaxRate, VmName};

/// A change of a VM's parameters; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VmChange {
    /// New shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<Shares>,
    /// New reservation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<Bytes>,
    /// New limit; none: its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<OrNone<Bytes>>,
    /// New resource pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Place>,
    /// The VMs that it shares pages with from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Sharing>,
    /// Whether it is to be started when the host has booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autostart: Option<bool>,
    /// New place among the VMs that start and stop with the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_order: Option<StartOrder>,
    /// New time that the next VM waits after this one has started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_delay: Option<StartDelay>,
    /// Labels that are set to a value, or removed (`null`); the others stay.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<LabelKey, Option<LabelValue>>,
    /// New tax of its own; none: the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax: Option<OrNone<TaxRate>>,
    /// Changes of disks, by the names that guests give them; the others stay.
    #[serde(default, rename = "disk", skip_serializing_if = "BTreeMap::is_empty")]
    pub disks: BTreeMap<DiskName, DiskChange>,
    /// Changes of network interfaces, by the names of their taps; the others stay.
    #[serde(default, rename = "net", skip_serializing_if = "BTreeMap::is_empty")]
    pub nets: BTreeMap<String, NetChange>,
}

/// A change of a disk; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DiskChange {
    /// Most requests a second from now on; none: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<OrNone<u64>>,
    /// Most bytes a second from now on; none: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<OrNone<Bytes>>,
    /// What it may do at once after a rest from now on, as time at that rate; none: the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<OrNone<Burst>>,
}

/// A change of a network interface; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NetChange {
    /// Whether its cable is plugged in from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkState>,
    /// Whether packets of the guest with another source address are dropped from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_filter: Option<bool>,
    /// Most packets a second in each direction from now on; none: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<OrNone<u64>>,
    /// Most bytes a second in each direction from now on; none: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<OrNone<Bytes>>,
    /// What may pass at once after a rest from now on, as time at that rate; none: the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<OrNone<Burst>>,
}

/// What a disk is to grow to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DiskResize {
    /// The disk, as its guest names it.
    pub disk: DiskName,
    /// Bytes that it is to have, no fewer than before; `None`: as many as its file or block device
    /// has by now. Of an image whose VM is off, `None` takes what it says of its size and its
    /// backing files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
}

/// A VM's new name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rename {
    /// The name, which no VM may have.
    pub name: VmName,
}

/// A change of a pool; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PoolChange {
    /// New place in the tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Place>,
    /// New shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<Shares>,
    /// New reservation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<Bytes>,
    /// New limit, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<OrNone<Bytes>>,
    /// Whether reservations within it may expand into its parent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expandable: Option<bool>,
}
