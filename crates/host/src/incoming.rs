//! What reaches the daemon's loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_protocol::control::FromVmm;
use plimsoll_units::Bytes;
use tokio::sync::oneshot;

use crate::cgroup::MemoryBound;
use crate::core::{Adopted, Answer, Failure, Input, ProcessMemory, Request, RunId, Settings};
use crate::launch::{Launched, RunDir, RunRecord, Site};
use crate::link::Link;
use crate::memory::Usable;
use crate::process::Process;

/// The answer to a call of the API.
pub(crate) type CallResult = Result<Answer, Failure>;

/// What reaches the daemon's loop.
#[derive(Debug)]
pub(crate) enum Incoming {
    Input(Input),
    Call(Box<Request>, oneshot::Sender<CallResult>),
    Launched(RunId, anyhow::Result<Box<Launched>>),
    /// The process of a VM that was adopted is known from now on.
    Identified(RunId, Arc<Process>),
    Reached(RunId, Box<Reached>),
    /// Memory of all VMMs' processes, and what the machine has for VMs, where that is known.
    Processes(Vec<(RunId, ProcessMemory)>, Option<Usable>),
    /// Memory of some guests.
    Guests {
        began: Instant,
        guests: Vec<(RunId, Bytes)>,
        /// Processor time that it took to look at them.
        cost: Duration,
    },
    /// The configuration was read again. What waits is told when it is in effect.
    Reloaded(Box<Reloaded>, oneshot::Sender<()>),
}

/// A VMM that has answered.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) adopted: Adopted,
    pub(crate) link: Link,
    pub(crate) directory: RunDir,
    pub(crate) record: RunRecord,
    /// `None`: the kernel does not hold it to its grant.
    pub(crate) bound: Option<MemoryBound>,
    /// A message that came in place of what the VMM might have said of its frames.
    pub(crate) first: Option<FromVmm>,
}

/// What changes in a daemon that runs.
#[derive(Debug)]
pub(crate) struct Reloaded {
    pub(crate) settings: Settings,
    pub(crate) site: Site,
    /// Which keys have changed, for users.
    pub(crate) news: String,
}
