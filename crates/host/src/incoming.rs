//! What reaches the daemon's loop.

use std::sync::Arc;
use std::time::Instant;

use plimsoll_protocol::control::FromVmm;
use plimsoll_units::Bytes;
use tokio::sync::oneshot;

use crate::core::{Adopted, Answer, Failure, Input, KernelAccount, Request, RunId};
use crate::launch::{Launched, RunDir, RunRecord};
use crate::link::Link;
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
    Accounts {
        began: Instant,
        accounts: Vec<(RunId, KernelAccount)>,
        usable: Option<Bytes>,
    },
}

/// A VMM that has answered.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) adopted: Adopted,
    pub(crate) link: Link,
    pub(crate) directory: RunDir,
    pub(crate) record: RunRecord,
    /// A message that came in place of what the VMM might have said of its frames.
    pub(crate) first: Option<FromVmm>,
}
