use plimsoll_protocol::VmName;
use plimsoll_protocol::control::FromVmm;
use plimsoll_protocol::definition::JailPart;
use plimsoll_protocol::sharing::DomainId;
use plimsoll_protocol::status::TurnStatus;
use plimsoll_units::{Bytes, FrameNo, PageNo, Pages};

use super::Settings;
use super::request::{Failure, Request, RequestId};
use super::resize::Growing;
use super::unreachable::Adopted;
use crate::domains::Report;
use crate::images::KnownImage;
use crate::memory::Usable;
use crate::processors::Processors;
use crate::run_id::RunId;

/// What the kernel says of one VM's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KernelAccount {
    /// Anonymous memory in the range that its VMM calls guest memory.
    pub(crate) ram: Bytes,
    pub(crate) process: ProcessMemory,
}

/// What the kernel says of the memory of one VMM's whole process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProcessMemory {
    pub(crate) anonymous: Bytes,
    /// Shared memory that it maps: frames among it.
    pub(crate) shared: Bytes,
}

/// A process that was launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Started {
    pub(crate) pid: u32,
    /// Parts of the jail that the daemon could not give it.
    pub(crate) missing_jail: Vec<JailPart>,
    /// What its operator should know of how it runs, each in one line.
    pub(crate) remarks: Vec<String>,
    /// Its swap space.
    pub(crate) swap: Pages,
    /// Its images, as they were found.
    pub(crate) images: Vec<KnownImage>,
}

#[cfg(any(test, feature = "fuzzing"))]
impl Started {
    /// The process of a VM without images, in which nothing is missing.
    pub(super) fn example() -> Self {
        Self { pid: 7, missing_jail: vec![], remarks: vec![], swap: Pages::ZERO, images: vec![] }
    }
}

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Input {
    Request(RequestId, Box<Request>),
    /// A launch that was ordered has ended.
    Launched(RunId, Result<Started, Failure>),
    Message(RunId, Box<FromVmm>),
    /// The VMM of an earlier daemon has answered.
    Reached(RunId, Box<Adopted>),
    /// Its VMM is unreachable, and why.
    Unreachable(RunId, String),
    /// Which process it is.
    Identified(RunId, u32),
    /// The VMM closed the connection.
    Closed(RunId),
    /// The VMM broke the protocol: how.
    Broken(RunId, String),
    /// The process is gone, and how it ended.
    Exited(RunId, String),
    /// Memory of the processes of all VMs, by the kernel's account, taken at one time.
    Processes(Vec<(RunId, ProcessMemory)>),
    /// Memory of some guests, by the kernel's account.
    Guests(Vec<(RunId, Bytes)>),
    /// What the machine has for VMs, theirs included.
    Usable(Usable),
    /// How busy the host's processors are.
    Processors(Processors),
    /// How long the daemon's loop took for its last turns.
    Turned(TurnStatus),
    /// The VMM does not read: it will not get a message about these pages.
    Unsent(RunId, DomainId, Vec<(PageNo, FrameNo)>),
    /// The guest could not be connected to this port of the host, and why. Not that nobody listens.
    NotDialed(RunId, u32, String),
    /// What came of an [`Effect::Order`](super::Effect::Order).
    Reported(Box<Report>),
    /// The record of a VM, or of all pools, could not be written, and why; `None`: it is on disk by
    /// now.
    Unsaved(Option<VmName>, Option<String>),
    /// The file of a disk has grown, to what its guest may use, or why not.
    Grown(Box<Growing>, Result<Bytes, Failure>),
    /// What an [`Effect::Keep`](super::Effect::Keep) has kept is on disk, or why it is not.
    Kept(Box<Growing>, Result<Bytes, Failure>),
    /// The configuration was read again: what it sets now, and what to tell of that.
    Reconfigured(Box<Settings>, String),
    /// Serve VMs that wait; [`Core::has_to_serve`](super::Core::has_to_serve) asks for it. The
    /// daemon does so once for all that has come in: serving looks at all VMs, and many VMs return
    /// memory, or ask for it, at once.
    Serve,
    /// Time has passed.
    Tick,
}
