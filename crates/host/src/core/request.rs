use jiff::Timestamp;
use plimsoll_protocol::api::Event;
use plimsoll_protocol::change::{DiskResize, PoolChange, VmChange};
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_protocol::explain::HostExplanation;
use plimsoll_protocol::pool::PoolDefinition;
use plimsoll_protocol::status::{DiskSize, DomainStatus, HostStatus, PoolStatus, VmStatus};
use plimsoll_protocol::{PoolName, VmName};
use serde::Serialize;

use super::explain::Explained;
use crate::history::Recording;
use crate::version::Version;

/// A request that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RequestId(pub(crate) u64);

/// What a user asks for.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Host,
    List,
    Get(VmName),
    /// A VM as it was defined and changed since.
    Definition(VmName),
    /// Define a VM and start it.
    Create(Box<VmDefinition>),
    /// Define a VM.
    Define(Box<VmDefinition>),
    /// Put a definition in the place of a VM's, if that is of one of these versions. `None`: of
    /// any.
    Redefine(VmName, Box<VmDefinition>, Option<Vec<Version>>),
    /// Give a VM another name.
    Rename(VmName, VmName),
    Change(VmName, VmChange),
    Forget(VmName),
    Start(VmName),
    Stop(VmName),
    Kill(VmName),
    /// Have its processors stand still.
    Pause(VmName),
    /// Have the processors of a paused VM go on.
    Resume(VmName),
    /// Press its reset button.
    Reset(VmName),
    /// Have a disk grow.
    ResizeDisk(VmName, DiskResize),
    /// What was recorded after a moment, of that many moments at most. The VM must be known.
    History {
        vm: Option<VmName>,
        after: Option<Timestamp>,
        limit: usize,
    },
    /// How memory is divided, and why.
    Explain,
    ExplainVm(VmName),
    Pools,
    Pool(PoolName),
    CreatePool(PoolDefinition),
    ChangePool(PoolName, PoolChange),
    RemovePool(PoolName),
    Sharing,
    /// The events with ids above this one.
    Events(u64),
    /// The host, all VMs and all pools.
    Overview,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Host(Box<HostStatus>),
    Vms(Vec<VmStatus>),
    Vm(Box<VmStatus>),
    Definition(Box<VmDefinition>),
    History(Recording),
    Explanation(Box<HostExplanation>),
    Explained(Box<Explained>),
    Pools(Vec<PoolStatus>),
    Pool(Box<PoolStatus>),
    Sharing(Vec<DomainStatus>),
    Events(Vec<Event>),
    DiskSize(DiskSize),
    Overview(Box<Overview>),
    Done,
    /// A change was made and is not on disk yet: its answer, and why.
    Unsaved(Box<Answer>, String),
}

/// The host, its VMs and its pools at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Overview {
    pub(crate) host: HostStatus,
    pub(crate) vms: Vec<VmStatus>,
    /// Parents before their children.
    pub(crate) pools: Vec<PoolStatus>,
}

/// Why a request was not carried out, in one line, with its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) text: String,
}

/// The kinds of [`Failure`] that a client may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// There is no such VM or pool.
    Unknown,
    /// The state of the VM or pool does not allow it.
    Conflict,
    /// What is to be changed is not what the client has read.
    Outdated,
    /// The request is invalid.
    Invalid,
    /// It does not fit into machine memory.
    NoMemory,
    /// A file or device that the VM needs is missing, busy or broken.
    Unfit,
    /// The daemon could not do it.
    Internal,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}
