use anyhow::Result;
use jiff::Timestamp;
use plimsoll_protocol::status::{HostStatus, PoolStatus, VmStatus};
use serde::Serialize;

use crate::client::Client;
use crate::selection::Filter;

/// The host and its VMs at one time.
#[derive(Debug, Serialize)]
pub(crate) struct Look {
    pub(crate) at: Timestamp,
    pub(crate) host: HostStatus,
    pub(crate) vms: Vec<VmStatus>,
}

impl Look {
    /// # Errors
    /// The daemon does not answer, or `filter` names a VM that does not exist.
    pub(crate) fn new(client: &Client, filter: &Filter) -> Result<Self> {
        let vms = filter.choose(client.vms()?)?;
        Ok(Self { at: Timestamp::now(), host: client.host()?, vms })
    }
}

/// A look, with what only the screen shows.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) look: Look,
    pub(super) pools: Vec<PoolStatus>,
}
