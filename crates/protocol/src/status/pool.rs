use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::place::Place;
use crate::shares::Shares;
use crate::{PoolName, VmName};

/// One resource pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PoolStatus {
    /// Its name.
    pub name: PoolName,
    /// The pool that it is part of.
    pub parent: Place,
    /// As defined.
    pub shares: Shares,
    /// The number that `shares` stands for.
    pub share_count: u64,
    /// Machine memory that its VMs together always have, as far as they can use it.
    pub reservation: Bytes,
    /// Machine memory that its VMs together never exceed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Bytes>,
    /// Whether reservations within it may expand into its parent's.
    pub expandable: bool,
    /// Reserved within it, by its VMs that run and its pools. Overheads are the host's.
    pub reserved: Bytes,
    /// What policy gives its VMs together now.
    pub entitled: Bytes,
    /// What its VMs are charged, those in pools below included: their grants and their parts of
    /// shared frames.
    pub granted: Bytes,
    /// The pools directly in it.
    pub pools: Vec<PoolName>,
    /// The VMs directly in it, whether they run or not.
    pub vms: Vec<VmName>,
}
