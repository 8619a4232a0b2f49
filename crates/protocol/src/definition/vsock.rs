use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use super::error::DefinitionError;

/// Sockets between the guest and the host (virtio-vsock), without a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Vsock {
    /// The guest's context identifier, [`MIN_CID`] to [`MAX_CID`]; `None`: one that no other VM of
    /// the host has, the same at each start where that is possible.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = MIN_CID, max = MAX_CID)))]
    pub cid: Option<u32>,
    /// Most connections at a time, 1 to [`MAX_CONNECTIONS`]. The VM is charged for the buffers of
    /// all of them.
    #[serde(skip_serializing_if = "is_default_connections")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_CONNECTIONS)))]
    pub connections: u16,
    /// The guest gets one more disk, which is the program of the agent that `plimsoll exec` and
    /// `cp` need; cloud-init, if it is told anything, installs it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub agent: bool,
}

impl Default for Vsock {
    fn default() -> Self {
        Self { cid: None, connections: DEFAULT_CONNECTIONS, agent: false }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_default_connections(connections: &u16) -> bool {
    *connections == DEFAULT_CONNECTIONS
}

/// The serial number of the agent's disk, by which its guest finds it:
/// `/dev/disk/by-id/virtio-plimsoll-agent`.
pub const AGENT_SERIAL: &str = "plimsoll-agent";

/// Lowest context identifier of a guest: those below are the hypervisor's, the loopback's and the
/// host's.
pub const MIN_CID: u32 = 3;
/// Highest context identifier of a guest: the one above means any.
pub const MAX_CID: u32 = u32::MAX - 1;
/// Most connections of a VM. Each takes a file descriptor of its VMM and [`CONNECTION_OVERHEAD`].
pub const MAX_CONNECTIONS: u16 = 1024;
/// Connections of a VM whose definition does not say: some shells and copies at a time, for 4.5 MiB
/// of memory.
const DEFAULT_CONNECTIONS: u16 = 64;

/// Bytes that a VMM keeps for a connection whose other end on the host does not read. With less,
/// guests wait for credit more often; with more, each connection is charged more.
pub const CONNECTION_BUFFER: u32 = 32 << 10;
/// The size that is asked of the kernel for the socket of a connection (`SO_SNDBUF`). The kernel
/// doubles it, and may exceed that by one message of half of it.
pub const SOCKET_BUFFER: u32 = 8 << 10;
/// What a connection takes of the host's memory at most: its buffer, its socket with what the
/// kernel keeps in it, whose bookkeeping doubles the bytes at worst, and what the VMM notes of it.
pub const CONNECTION_OVERHEAD: Bytes = Bytes(CONNECTION_BUFFER as u64 + 4 * SOCKET_BUFFER as u64 + (8 << 10));

impl Vsock {
    /// The machine memory that the VM is charged for its connections.
    pub(super) fn overhead(self) -> Bytes {
        Bytes(u64::from(self.connections) * CONNECTION_OVERHEAD.0)
    }

    /// Checks its bounds.
    ///
    /// # Errors
    /// What is wrong and what would do, on one line.
    pub(super) fn check(self) -> Result<(), DefinitionError> {
        match (self.cid, self.connections) {
            (Some(cid), _) if !(MIN_CID..=MAX_CID).contains(&cid) => Err(DefinitionError::new(format!(
                "vsock.cid {cid}: must be {MIN_CID} to {MAX_CID}; without the key it is chosen"
            ))),
            (_, connections) if connections == 0 || connections > MAX_CONNECTIONS => {
                Err(DefinitionError::new(format!(
                    "vsock.connections {connections}: must be 1 to {MAX_CONNECTIONS}"
                )))
            }
            _ => Ok(()),
        }
    }
}
