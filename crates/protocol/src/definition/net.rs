use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use super::error::DefinitionError;
use super::mac::MacAddress;
use super::rate::RateKeys;
use crate::burst::Burst;
use crate::link_state::LinkState;

/// A network interface backed by a tap device that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// Name of the tap device.
    pub tap: String,
    /// The guest's address; `None`: made from the VM's name, so that it stays the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// Whether its cable is plugged in.
    #[serde(default, skip_serializing_if = "is_up")]
    pub link: LinkState,
    /// Packets of the guest with another source address than its own are dropped and counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mac_filter: bool,
    /// Most packets a second in each direction, [`MIN_PACKETS`] at least; `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
    /// Most bytes a second in each direction, [`MIN_NET_BANDWIDTH`] at least; `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bytes>,
    /// What may pass at once after a rest, as time at that rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Burst>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_up(link: &LinkState) -> bool {
    *link == LinkState::Up
}

/// Lowest limit of an interface's packets a second. With less, connections break down.
pub const MIN_PACKETS: u64 = 100;
/// Lowest limit of an interface's bytes a second: with segmentation offload a packet has 64 KiB,
/// and TCP takes a pause of a second for a loss.
pub const MIN_NET_BANDWIDTH: Bytes = Bytes(64 << 10);

impl Net {
    /// An interface of which all but its tap has its default value.
    pub fn new(tap: impl Into<String>) -> Self {
        Self {
            tap: tap.into(),
            mac: None,
            link: LinkState::Up,
            mac_filter: false,
            packets: None,
            bandwidth: None,
            burst: None,
        }
    }

    /// Checks its keys.
    ///
    /// # Errors
    /// What is wrong and what would do, on one line.
    pub(super) fn check(&self) -> Result<(), DefinitionError> {
        let tap = &self.tap;
        // IFNAMSIZ is 16 with the terminating zero.
        if tap.is_empty() || tap.len() > 15 || tap.contains(['/', ' ', '\0']) {
            return Err(DefinitionError::new(format!(
                "net.tap {tap:?}: name a tap device, 1 to 15 characters"
            )));
        }
        let keys = RateKeys {
            device: format!("net {tap}"),
            operations: ("packets", self.packets, MIN_PACKETS),
            bandwidth: (self.bandwidth, MIN_NET_BANDWIDTH),
        };
        keys.check()
    }
}
