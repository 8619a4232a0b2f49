use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use super::boot::{NetSettings, RateLimit};

/// What changes of a device while its VM runs. Places count from 0 and are those in
/// [`BootConfig::disks`] and [`BootConfig::nets`]; one that does not exist is ignored.
///
/// [`BootConfig::disks`]: super::BootConfig::disks
/// [`BootConfig::nets`]: super::BootConfig::nets
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceOrder {
    /// How fast a disk may be from now on.
    DiskRate {
        /// Its place.
        disk: u8,
        /// The limit.
        rate: RateLimit,
    },
    /// A disk has this many bytes from now on: its file or device has grown, or its image is to
    /// grow. The answer is [`FromVmm::Resized`].
    ///
    /// [`FromVmm::Resized`]: super::FromVmm::Resized
    DiskSize {
        /// Its place.
        disk: u8,
        /// Bytes; no fewer than it has.
        size: Bytes,
    },
    /// What holds for a network interface from now on.
    Net {
        /// Its place.
        net: u8,
        /// All of it.
        settings: NetSettings,
    },
}

impl DeviceOrder {
    /// Whether `before` need not be told any more: this order is about the same of the same device.
    pub fn replaces(&self, before: &Self) -> bool {
        match (self, before) {
            (Self::DiskRate { disk, .. }, Self::DiskRate { disk: before, .. })
            | (Self::DiskSize { disk, .. }, Self::DiskSize { disk: before, .. }) => disk == before,
            (Self::Net { net, .. }, Self::Net { net: before, .. }) => net == before,
            _ => false,
        }
    }
}
