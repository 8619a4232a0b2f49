use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::sharing::Sharing;
use crate::{DomainName, VmName};

/// What a VM shares.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SharingStatus {
    /// As defined.
    pub with: Sharing,
    /// It still has pages of its former domain, and gives them back over time.
    #[serde(default)]
    pub leaving: bool,
    /// Guest memory that reads frames of its domain.
    pub shared: Bytes,
    /// Its part of those frames: what it is charged for them.
    pub charged: Bytes,
    /// Guest memory that was found to hold zeros, and costs nothing.
    pub zero: Bytes,
    /// What it would need in addition if nothing were shared: what it shares, less its part of the
    /// frames, and zero pages.
    pub saved: Bytes,
    /// Looked at since it was started.
    pub scanned: Bytes,
    /// Merged with pages of the same content since it was started.
    pub merged: Bytes,
    /// Written by the guest again.
    pub broken: Bytes,
    /// Pages whose content was not what their VMM claimed.
    pub mismatched: u64,
    /// Lately looked at in a second.
    pub scan_rate: Bytes,
    /// Lately merged in a second, zero pages included.
    pub merge_rate: Bytes,
    /// Lately written again in a second.
    pub break_rate: Bytes,
    /// Processor time that looking for pages lately took, in ten-thousandths of a processor.
    pub cpu: u64,
    /// Processor time that looking for pages may take, in ten-thousandths of a processor.
    pub budget: u16,
    /// Large chunks are broken for pages of them that can be shared.
    pub break_large: bool,
    /// Its process is near the most mappings that it may have: only runs of pages and zero pages
    /// are shared.
    pub mappings_full: bool,
    /// Its VMM made false claims about pages: its requests are ignored for a while.
    pub doubted: bool,
}

/// A sharing domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DomainStatus {
    /// Its name; `None`: it is a VM's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<DomainName>,
    /// A VM that was in it runs on and could read its frames: nothing new is shared in it. The
    /// others move to a new domain of the same name as memory allows.
    #[serde(default)]
    pub closed: bool,
    /// The VMs in it, those included that are about to leave.
    pub vms: Vec<VmName>,
    /// Machine memory that its frames take.
    pub frames: Bytes,
    /// Guest memory that reads them.
    pub shared: Bytes,
    /// The difference, or nothing.
    pub saved: Bytes,
    /// Guest memory of which nothing is known but its digest.
    pub hints: Bytes,
    /// The daemon's own memory that its bookkeeping takes.
    pub index: Bytes,
}
