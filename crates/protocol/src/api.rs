//! The HTTP/JSON API: its paths, and what travels on them. The daemon describes it for programs, as
//! OpenAPI 3.1, at `/v1/openapi.json`.
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | `GET /v1/host` | | [`HostStatus`] |
//! | `GET /v1/vms` | | `[`[`VmStatus`]`]` |
//! | `POST /v1/vms?start=true\|false` | [`VmDefinition`] | the VM is defined, and started (the default) or not: [`VmStatus`] |
//! | `GET /v1/vms/NAME` | | [`VmStatus`] |
//! | `GET /v1/vms/NAME/definition` | | [`VmDefinition`]: as it was given, with later changes; what was left to its default is left out; with an `ETag` |
//! | `PUT /v1/vms/NAME/definition` | [`VmDefinition`] | it takes the place of the VM's; while the VM is on, only what [`VmChange`] has may differ; with `If-Match` only if it is still the one of that `ETag`: [`VmStatus`] |
//! | `POST /v1/vms/NAME/rename` | [`Rename`] | the VM, which must be off, has another name: [`VmStatus`] |
//! | `PATCH /v1/vms/NAME` | [`VmChange`] | [`VmStatus`] |
//! | `DELETE /v1/vms/NAME` | | the VM is removed; it must be off |
//! | `POST /v1/vms/NAME/start` | | the VM, which was off, is started: [`VmStatus`] |
//! | `POST /v1/vms/NAME/stop` | | its power button is pressed: [`VmStatus`] |
//! | `POST /v1/vms/NAME/pause` | | its processors stand still: [`VmStatus`] |
//! | `POST /v1/vms/NAME/resume` | | they go on: [`VmStatus`] |
//! | `POST /v1/vms/NAME/reset` | | its machine is reset, as by a reset button: [`VmStatus`] |
//! | `POST /v1/vms/NAME/kill` | | its process is ended: [`VmStatus`] |
//! | `POST /v1/vms/NAME/resize-disk` | [`DiskResize`] | a disk has grown, and the guest of a VM that is on knows: [`DiskSize`] |
//! | `GET /v1/vms/NAME/log?source=vmm\|console` | | text |
//! | `GET /v1/explain?format=json\|text` | | [`HostExplanation`]; as text the sentences that `plimsoll explain` prints |
//! | `GET /v1/vms/NAME/explain?format=json\|text` | | [`VmExplanation`] |
//! | `GET /v1/live` | | host and VMs every two seconds, as server-sent events |
//! | `GET /v1/history?vm=NAME&format=json\|csv&after=TIME&limit=N` | | [`History`], of one VM or all; with `limit` a page of N moments, whose `next` is the `after` of the next page; as CSV its columns are [`CSV_HEADER`](crate::history::CSV_HEADER) |
//! | `GET /v1/pools` | | `[`[`PoolStatus`]`]`, parents before their children |
//! | `POST /v1/pools` | [`PoolDefinition`] | [`PoolStatus`] |
//! | `GET /v1/pools/NAME` | | [`PoolStatus`] |
//! | `PATCH /v1/pools/NAME` | [`PoolChange`] | [`PoolStatus`] |
//! | `DELETE /v1/pools/NAME` | | the pool is removed; it must hold neither pools nor VMs |
//! | `GET /v1/sharing` | | `[`[`DomainStatus`]`]` |
//! | `GET /v1/events?after=ID&before=ID&limit=N` | | `[`[`Event`]`]`, the latest, oldest first; with `after` those that came after the event of that id, with `before` those that came before; with `limit` the first N where there is `after`, else the last N |
//! | the same, with `Accept: text/event-stream` | | server-sent events: an [`Event`] each, its id as the stream's, and what happens from then on; `Last-Event-ID` goes before `after` |
//! | `GET /v1/openapi.json` | | the description of the API |
//! | `GET /metrics` | | the host, its VMs and its pools for Prometheus: OpenMetrics, or Prometheus' own text format for clients that do not accept that |
//!
//! Sizes are whole bytes in answers, and bytes or text ("512MiB") in requests. In requests a whole
//! number may have a fraction of zero (64.0, 6.4e1), and a member that is `null` is left out; only
//! a label that is `null` in a [`VmChange`] is removed. An error answers with a status from 400 up
//! and an [`ErrorBody`], as `application/problem+json` (RFC 9457):
//!
//! | status | `type`, after `urn:plimsoll:problem:` | means |
//! |---|---|---|
//! | 400 | `invalid` | the request, its body or its query is wrong, and will be when it is sent again |
//! | 401 | `unauthorized` | the bearer token is missing or wrong (TCP only) |
//! | 403 | `forbidden` | the token permits to look only (TCP only) |
//! | 404 | `no-path` | no such path in this API |
//! | 404 | `unknown` | there is no such VM or pool |
//! | 405 | `no-method` | the path does not support the method |
//! | 408 | `late` | the body did not arrive in time |
//! | 409 | `conflict` | the state of the VM or pool does not allow it |
//! | 412 | `outdated` | the definition is another by now than the one that `If-Match` names |
//! | 413 | `too-long` | the body is longer than any that makes sense |
//! | 422 | `unfit` | a file or device that the VM needs is missing, busy or broken; or its VMM did not come up |
//! | 429 | `too-often` | too many changes or costly questions of this client: `Retry-After` says when to try again |
//! | 431 | | the head is too long; the answer has no body |
//! | 500 | `internal` | the daemon could not do it; its log may say more |
//! | 503 | `busy` | too many requests of this client are being answered, too many clients follow the events, or others read long histories: `Retry-After` says when to try again |
//! | 507 | `no-memory` | it does not fit into machine memory |
//!
//! A change that is in effect and not on disk yet is answered as a success with the header
//! [`UNSAVED_HEADER`].
//!
//! [`HostStatus`]: crate::status::HostStatus
//! [`VmStatus`]: crate::status::VmStatus
//! [`PoolStatus`]: crate::status::PoolStatus
//! [`DomainStatus`]: crate::status::DomainStatus
//! [`VmDefinition`]: crate::definition::VmDefinition
//! [`PoolDefinition`]: crate::pool::PoolDefinition
//! [`VmChange`]: crate::change::VmChange
//! [`PoolChange`]: crate::change::PoolChange
//! [`DiskResize`]: crate::change::DiskResize
//! [`DiskSize`]: crate::status::DiskSize
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

/// Body of an answer that is an error: problem details as in RFC 9457.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ErrorBody {
    /// The kind of error, for programs: a word of the table above.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The same for people; the same text for all errors of the kind.
    #[serde(default)]
    pub title: String,
    /// The status of the answer.
    #[serde(default)]
    pub status: u16,
    /// What failed, on what, and what to do, in one line.
    #[serde(default)]
    pub detail: String,
    /// The same text as `detail`, under the name that it had before.
    pub error: String,
}
