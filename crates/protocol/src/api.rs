//! What the daemon tells its users: the types of the HTTP/JSON API.
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | `GET /v1/host` | | [`HostStatus`] |
//! | `GET /v1/vms` | | `[`[`VmStatus`]`]` |
//! | `POST /v1/vms` | [`crate::definition::VmDefinition`] | the VM is defined and started: [`VmStatus`] |
//! | `GET /v1/vms/NAME` | | [`VmStatus`] |
//! | `PATCH /v1/vms/NAME` | [`VmChange`] | [`VmStatus`] |
//! | `DELETE /v1/vms/NAME` | | the VM is forgotten; it must be off |
//! | `POST /v1/vms/NAME/start` | | it was off and runs: [`VmStatus`] |
//! | `POST /v1/vms/NAME/stop` | | the power button was pressed: [`VmStatus`] |
//! | `POST /v1/vms/NAME/kill` | | its process is gone: [`VmStatus`] |
//! | `GET /v1/vms/NAME/log?source=vmm\|console` | | text |
//! | `GET /v1/explain` | | [`HostExplanation`] |
//! | `GET /v1/vms/NAME/explain` | | [`VmExplanation`] |
//! | `GET /v1/history?vm=NAME&format=json\|csv` | | [`History`], of one VM or all; as CSV its columns are [`CSV_HEADER`](crate::history::CSV_HEADER) |
//! | `GET /v1/pools` | | `[`[`PoolStatus`]`]`, parents before their children |
//! | `POST /v1/pools` | [`PoolDefinition`] | [`PoolStatus`] |
//! | `GET /v1/pools/NAME` | | [`PoolStatus`] |
//! | `PATCH /v1/pools/NAME` | [`PoolChange`] | [`PoolStatus`] |
//! | `DELETE /v1/pools/NAME` | | the pool is gone; it must hold neither pools nor VMs |
//! | `GET /v1/sharing` | | `[`[`DomainStatus`]`]` |
//! | `GET /v1/events` | | `[`[`Event`]`]`, the latest, oldest first |
//!
//! Sizes are whole bytes in answers, and bytes or text ("512MiB") in requests. An error answers
//! with a status from 400 up and an [`ErrorBody`].

use std::path::PathBuf;

use jiff::Timestamp;
use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::control::{Chunks, ExitReason, GuestFacts};
use crate::definition::{JailPart, Shares};
#[cfg(doc)]
use crate::explain::{HostExplanation, VmExplanation};
#[cfg(doc)]
use crate::history::History;
use crate::pool::Place;
#[cfg(doc)]
use crate::pool::{PoolChange, PoolDefinition};
#[cfg(doc)]
use crate::sharing::DomainStatus;
use crate::sharing::{Sharing, SharingStatus};
use crate::stall::{StallStatus, Standstill};
use crate::{OrNone, PoolName, TaxRate, VmName};

/// Where the daemon listens unless its configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/plimsoll/plimsoll.sock";

/// The host's account of its memory. At every moment `budget = granted + overhead + frames + free`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Machine memory that Plimsoll may use.
    pub budget: Bytes,
    /// The part of the configured budget that other programs of the host have taken: not in
    /// `budget`, unless VMs still have it. Zero where the budget is automatic: it follows what the
    /// machine has.
    #[serde(default)]
    pub taken: Bytes,
    /// Promised to guests.
    pub granted: Bytes,
    /// Charged for the VMMs' own memory.
    pub overhead: Bytes,
    /// Frames that pages of VMs share.
    #[serde(default)]
    pub frames: Bytes,
    /// Guest memory that reads them.
    #[serde(default)]
    pub shared: Bytes,
    /// Guest memory that was found to hold zeros, and costs nothing.
    #[serde(default)]
    pub zero: Bytes,
    /// Promised to nobody.
    pub free: Bytes,
    /// Reserved by VMs that run, with their overhead, and by pools.
    pub reserved: Bytes,
    /// VMs that start get swap space.
    #[serde(default)]
    pub swapping: bool,
    /// Why they get none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_swap: Option<String>,
    /// Swap space that admission counts on; `None`: it does not look at swap space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<Bytes>,
    /// Swap space that all VMs that run have reserved: size less reservation.
    #[serde(default)]
    pub swap_reserved: Bytes,
    /// Content of guests that is in swap space only.
    #[serde(default)]
    pub swapped: Bytes,
    /// Content of guests that is compressed.
    #[serde(default)]
    pub compressed: Bytes,
    /// Machine memory that compressed content takes: part of what is held.
    #[serde(default)]
    pub store: Bytes,
    /// VMs whose processors stand still until they hold less.
    #[serde(default)]
    pub blocked: u64,
    /// Held by guests, as their VMMs say.
    pub held: Bytes,
    /// In balloons.
    pub ballooned: Bytes,
    /// Resident guest memory, as the kernel accounts it.
    pub kernel: Bytes,
    /// Highest `granted + overhead + frames` since the daemon started.
    pub peak_ledger: Bytes,
    /// Highest `kernel` that was seen since the daemon started.
    pub peak_kernel: Bytes,
    /// How short of free memory the host is.
    pub state: HostState,
    /// Below this much free memory the host is no longer in state high.
    pub high_threshold: Bytes,
    /// Time that VMs were stalled for memory.
    #[serde(default)]
    pub stall: StallStatus,
    /// VMs that stand still for want of memory.
    #[serde(default)]
    pub stalled: u64,
    /// VMs that run.
    pub running: u64,
    /// The daemon's version.
    pub version: String,
}

/// How short of free machine memory the host is, after ESXi.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostState {
    /// Enough is free.
    High,
    /// Less than that, but nothing has to be reclaimed yet.
    Clear,
    /// Balloons work.
    Soft,
    /// Balloons do not suffice.
    Hard,
    /// VMs above their targets wait.
    Low,
}

impl std::fmt::Display for HostState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::High => "high",
            Self::Clear => "clear",
            Self::Soft => "soft",
            Self::Hard => "hard",
            Self::Low => "low",
        })
    }
}

/// One VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VmStatus {
    /// Its name.
    pub name: VmName,
    /// What it does.
    pub power: Power,
    /// Why it is off, if it has been on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Its VMM's process, while it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// No guest kernel but a host thread.
    pub model: bool,
    /// Number of vCPUs.
    pub vcpus: u8,
    /// Guest-physical memory.
    pub size: Bytes,
    /// Machine memory that it always has.
    pub reservation: Bytes,
    /// Machine memory that it never exceeds.
    pub limit: Bytes,
    /// As defined.
    pub shares: Shares,
    /// The number that `shares` stands for.
    pub share_count: u64,
    /// The resource pool that it is in.
    #[serde(default)]
    pub pool: Place,
    /// A tax on its idle memory of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax: Option<TaxRate>,
    /// Promised to it by the ledger.
    pub grant: Bytes,
    /// Charged for its VMM.
    pub overhead: Bytes,
    /// Held by its guest, as its VMM says.
    pub held: Bytes,
    /// Resident guest memory, as the kernel accounts it.
    pub kernel: Bytes,
    /// Memory that its faults wait for, also beyond its limit.
    pub wanted: Bytes,
    /// Time that it was stalled for memory since it was started.
    #[serde(default)]
    pub stall: StallStatus,
    /// It stands still for want of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled: Option<Standstill>,
    /// Estimate of what it actively uses.
    pub active: Bytes,
    /// What policy gives it now.
    pub entitlement: Bytes,
    /// What its mechanisms steer to.
    pub target: Bytes,
    /// In its balloon.
    pub ballooned: Bytes,
    /// Size that its balloon is to have.
    pub balloon_target: Bytes,
    /// Whether its balloon does as it is told.
    pub balloon: BalloonHealth,
    /// What is compressed and swapped out of it.
    #[serde(default)]
    pub paging: PagingStatus,
    /// What it shares.
    #[serde(default)]
    pub sharing: SharingStatus,
    /// Its chunks by state.
    pub chunks: Chunks,
    /// Faults served.
    pub faults: u64,
    /// Times that the guest rebooted since it was started.
    pub reboots: u32,
    /// What the guest's balloon driver says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestFacts>,
    /// Parts of the jail that it runs without.
    #[serde(default)]
    pub missing_jail: Vec<JailPart>,
    /// Something that the operator should know of it, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// When it was last started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// The unix socket of its console.
    pub console: PathBuf,
}

impl VmStatus {
    /// What it is charged, and measured by against its entitlement, target and limits: its grant
    /// and its part of shared frames.
    pub fn charge(&self) -> Bytes {
        self.grant.saturating_add(self.sharing.charged)
    }
}

/// What is compressed and swapped out of a VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PagingStatus {
    /// Content that is compressed.
    pub compressed: Bytes,
    /// Machine memory that it takes so: part of what is held.
    pub store: Bytes,
    /// Content that is in swap space only.
    pub swapped: Bytes,
    /// Swap space that it has; zero: nothing is swapped out of it.
    pub space: Bytes,
    /// Compressed since it was started.
    pub zipped: Bytes,
    /// Decompressed again.
    pub unzipped: Bytes,
    /// Written to swap space since it was started.
    pub swapped_out: Bytes,
    /// Read from there.
    pub swapped_in: Bytes,
    /// Lately written to swap space in a second.
    pub out_rate: Bytes,
    /// Lately read from there in a second.
    pub in_rate: Bytes,
    /// What it may hold, what it waits for included, before pages of its own are compressed and
    /// swapped out; `None`: that happens to it never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Bytes>,
    /// Why its own pages are, or would be, compressed and swapped out; `None`: nothing asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<PagingReason>,
    /// Its processors stand still until it holds no more than that.
    pub blocked: bool,
    /// What was last asked could not be taken.
    pub stuck: bool,
    /// Its swap space could not be written: nothing more is swapped out.
    pub failed: bool,
}

/// Why pages of a VM are compressed and swapped out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PagingReason {
    /// It is above its target, and its balloon cannot bring all of that, or not soon enough for the
    /// host's state.
    AboveTarget,
    /// Others wait for memory that they are entitled to, and it holds more than it is.
    Owed,
    /// It is at the most that it may have: what it needs beyond comes from its own pages.
    AtLimit,
    /// It has waited in vain for memory: what it needs comes from its own pages.
    Waited,
}

/// What a VM does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// Its VMM is being set up.
    Starting,
    /// It runs.
    On,
    /// It was asked to shut down and has not yet.
    Stopping,
    /// It does not run.
    Off,
}

impl std::fmt::Display for Power {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::On => "on",
            Self::Stopping => "stopping",
            Self::Off => "off",
        })
    }
}

/// How a VM's last run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// Its VMM said why.
    Told(ExitReason),
    /// The operator killed it.
    KilledByOperator,
    /// Its process ended without a word: the signal or exit code, if known.
    Vanished(String),
    /// Its VMM could not be set up: why.
    NotStarted(String),
    /// The host ended or crashed while the VM ran.
    EndedWithHost,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Told(reason) => reason.fmt(f),
            Self::KilledByOperator => f.write_str("the operator killed it"),
            Self::NotStarted(why) => write!(f, "did not start: {why}"),
            Self::EndedWithHost => f.write_str("ended with the host"),
            Self::Vanished(how) => write!(f, "its process ended without a word ({how})"),
        }
    }
}

/// Whether a VM's balloon does as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BalloonHealth {
    /// No driver has been seen.
    Absent,
    /// At its target, or moving towards it.
    Following,
    /// It has not moved towards its target for some time.
    Stuck,
}

impl std::fmt::Display for BalloonHealth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Absent => "absent",
            Self::Following => "following",
            Self::Stuck => "stuck",
        })
    }
}

/// A change of a VM's parameters; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmChange {
    /// New shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<Shares>,
    /// New reservation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<Bytes>,
    /// New limit; none: its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<OrNone<Bytes>>,
    /// New resource pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Place>,
    /// With whom it shares pages from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Sharing>,
    /// New tax of its own; none: the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax: Option<OrNone<TaxRate>>,
}

/// One resource pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
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
