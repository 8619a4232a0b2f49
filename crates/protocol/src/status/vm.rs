use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use super::devices::{DiskStatus, NetStatus};
use super::paging::PagingStatus;
use super::sharing::SharingStatus;
use crate::control::{Chunks, ExitReason, GuestFacts};
use crate::definition::JailPart;
use crate::place::Place;
use crate::shares::Shares;
use crate::stall::{StallStatus, Standstill};
use crate::{Labels, StartDelay, StartOrder, TaxRate, VmName};

/// One VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// It is to be started when the host has booted.
    #[serde(default)]
    pub autostart: bool,
    /// Its place among the VMs that start and stop with the host.
    #[serde(default)]
    pub start_order: StartOrder,
    /// How long the next VM waits after this one has started.
    #[serde(default)]
    pub start_delay: StartDelay,
    /// What its operator notes about it.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// A tax on its idle memory of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax: Option<TaxRate>,
    /// Its disks, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskStatus>,
    /// Its network interfaces, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<NetStatus>,
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
    /// Whether its balloon follows its target.
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
    /// A remark for the operator, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// When it was last started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// The unix socket of its console.
    pub console: PathBuf,
    /// The unix socket that leads to ports of its guest; `None`: it has no vsock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<PathBuf>,
}

impl VmStatus {
    /// The machine memory that it is charged: its grant and its part of shared frames. Its
    /// entitlement, target and limits are compared with this.
    pub fn charge(&self) -> Bytes {
        self.grant.saturating_add(self.sharing.charged)
    }
}

/// What a VM does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// Its VMM is being set up.
    Starting,
    /// It runs.
    On,
    /// Its processors stand still because its operator said so.
    Paused,
    /// It was asked to shut down and has not yet.
    Stopping,
    /// It does not run.
    Off,
}

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::On => "on",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Off => "off",
        })
    }
}

/// How a VM's last run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// Its VMM gave the reason.
    Told(ExitReason),
    /// The operator killed it.
    KilledByOperator,
    /// Its VMM ended without a reason of its own: the signal or exit code, if known.
    Vanished(String),
    /// Its VMM could not be set up: why.
    NotStarted(String),
    /// The host ended or crashed while the VM ran.
    EndedWithHost,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told(reason) => reason.fmt(f),
            Self::KilledByOperator => f.write_str("killed by the operator"),
            Self::NotStarted(why) => write!(f, "did not start: {why}"),
            Self::EndedWithHost => f.write_str("ended with the host"),
            Self::Vanished(how) => write!(f, "its VMM ended unexpectedly ({how})"),
        }
    }
}

/// Whether a VM's balloon follows its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum BalloonHealth {
    /// No driver has been seen.
    Absent,
    /// At its target, or moving towards it.
    Following,
    /// It has not moved towards its target for some time.
    Stuck,
}

impl fmt::Display for BalloonHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Absent => "absent",
            Self::Following => "following",
            Self::Stuck => "stuck",
        })
    }
}
