use std::path::PathBuf;

use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::definition::MacAddress;
use crate::{Burst, DiskName, LinkState};

/// A disk of a VM, and what it is held to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiskStatus {
    /// Its name in the guest.
    pub name: DiskName,
    /// Where it is on the host.
    pub path: PathBuf,
    /// Most requests a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u64>,
    /// Most bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bytes>,
    /// What it may do at once after a rest, as time at that rate.
    pub burst: Burst,
}

/// A disk that was resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiskSize {
    /// Its name in the guest.
    pub disk: DiskName,
    /// Bytes that it has now.
    pub size: Bytes,
}

/// A network interface of a VM, and what it is held to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NetStatus {
    /// Its tap device.
    pub tap: String,
    /// The guest's address.
    pub mac: MacAddress,
    /// Whether its cable is plugged in.
    pub link: LinkState,
    /// Packets of the guest with another source address are dropped.
    pub mac_filter: bool,
    /// How many have been dropped since the VM was started.
    pub filtered: u64,
    /// Most packets a second in each direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
    /// Most bytes a second in each direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bytes>,
    /// What may pass at once after a rest, as time at that rate.
    pub burst: Burst,
}
