//! What a look at a VM shows.

use plimsoll_protocol::status::VmStatus;
use plimsoll_units::Bytes;

/// A VM at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) name: String,
    /// Its grant, and its part of shared frames.
    pub(super) charge: Bytes,
    pub(super) entitlement: Bytes,
    /// Its faults wait for memory.
    pub(super) waits: bool,
    /// Its balloon has still to grow.
    pub(super) inflates: bool,
}

impl Look {
    pub(super) fn of(vm: &VmStatus) -> Self {
        Self {
            name: vm.name.to_string(),
            charge: vm.charge(),
            entitlement: vm.entitlement,
            waits: vm.wanted > Bytes::ZERO,
            inflates: vm.ballooned < vm.balloon_target,
        }
    }

    /// Returns whether it waits for memory that it is entitled to. Less than a chunk does not
    /// count: a VM takes what it needs in chunks, and its entitlement moves each second.
    pub(super) fn is_owed(&self) -> bool {
        self.waits && self.charge + Bytes::mib(2) <= self.entitlement
    }

    /// Returns whether it has more than it is entitled to.
    pub(super) fn is_above(&self) -> bool {
        self.charge > self.entitlement
    }
}
