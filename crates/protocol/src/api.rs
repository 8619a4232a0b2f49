//! The HTTP/JSON API: its paths, and what travels on them.
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | `GET /v1/host` | | [`HostStatus`] |
//! | `GET /v1/vms` | | `[`[`VmStatus`]`]` |
//! | `POST /v1/vms?start=true\|false` | [`VmDefinition`] | the VM is defined, and started (the default) or not: [`VmStatus`] |
//! | `GET /v1/vms/NAME` | | [`VmStatus`] |
//! | `GET /v1/vms/NAME/definition` | | [`VmDefinition`]: as it was given, with later changes; what was left to its default is left out |
//! | `PUT /v1/vms/NAME/definition` | [`VmDefinition`] | it takes the place of the VM's; while the VM is on, only what [`VmChange`] has may differ: [`VmStatus`] |
//! | `POST /v1/vms/NAME/rename` | [`Rename`] | the VM, which must be off, has another name: [`VmStatus`] |
//! | `PATCH /v1/vms/NAME` | [`VmChange`] | [`VmStatus`] |
//! | `DELETE /v1/vms/NAME` | | the VM is removed; it must be off |
//! | `POST /v1/vms/NAME/start` | | the VM, which was off, is started: [`VmStatus`] |
//! | `POST /v1/vms/NAME/stop` | | its power button is pressed: [`VmStatus`] |
//! | `POST /v1/vms/NAME/kill` | | its process is ended: [`VmStatus`] |
//! | `GET /v1/vms/NAME/log?source=vmm\|console` | | text |
//! | `GET /v1/explain?format=json\|text` | | [`HostExplanation`]; as text the sentences that `plimsoll explain` prints |
//! | `GET /v1/vms/NAME/explain?format=json\|text` | | [`VmExplanation`] |
//! | `GET /v1/live` | | host and VMs every two seconds, as server-sent events |
//! | `GET /v1/history?vm=NAME&format=json\|csv` | | [`History`], of one VM or all; as CSV its columns are [`CSV_HEADER`](crate::history::CSV_HEADER) |
//! | `GET /v1/pools` | | `[`[`PoolStatus`]`]`, parents before their children |
//! | `POST /v1/pools` | [`PoolDefinition`] | [`PoolStatus`] |
//! | `GET /v1/pools/NAME` | | [`PoolStatus`] |
//! | `PATCH /v1/pools/NAME` | [`PoolChange`] | [`PoolStatus`] |
//! | `DELETE /v1/pools/NAME` | | the pool is removed; it must hold neither pools nor VMs |
//! | `GET /v1/sharing` | | `[`[`DomainStatus`]`]` |
//! | `GET /v1/events?after=ID` | | `[`[`Event`]`]`, the latest, oldest first; with `after` those that came after the event of that id |
//! | `GET /metrics` | | the host, its VMs and its pools for Prometheus: OpenMetrics, or Prometheus' own text format for clients that do not accept that |
//!
//! Sizes are whole bytes in answers, and bytes or text ("512MiB") in requests. An error answers
//! with a status from 400 up and an [`ErrorBody`]. A change that is in effect and not on disk yet is
//! answered as a success with the header [`UNSAVED_HEADER`].
//!
//! [`HostStatus`]: crate::status::HostStatus
//! [`VmStatus`]: crate::status::VmStatus
//! [`PoolStatus`]: crate::status::PoolStatus
//! [`DomainStatus`]: crate::status::DomainStatus
//! [`VmDefinition`]: crate::definition::VmDefinition
//! [`PoolDefinition`]: crate::pool::PoolDefinition
//! [`VmChange`]: crate::change::VmChange
//! [`PoolChange`]: crate::change::PoolChange
//! [`Rename`]: crate::change::Rename
//! [`HostExplanation`]: crate::explain::HostExplanation
//! [`VmExplanation`]: crate::explain::VmExplanation
//! [`History`]: crate::history::History

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::VmName;

/// Where the daemon listens unless its configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/plimsoll/plimsoll.sock";

/// The header of an answer to a change that is in effect and not on disk yet: why not.
pub const UNSAVED_HEADER: &str = "plimsoll-unsaved";

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Rises with each event of this host, by one.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// To which VM; `None`: to the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmName>,
    /// What, in one line.
    pub text: String,
}

/// Body of an answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What failed, on what, and what to do, in one line.
    pub error: String,
}
