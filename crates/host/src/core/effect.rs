use std::os::fd::OwnedFd;

use plimsoll_protocol::VmName;
use plimsoll_protocol::api::Event;
use plimsoll_protocol::control::ToVmm;
use plimsoll_protocol::definition::JailPart;
use plimsoll_protocol::pool::PoolDefinition;
use plimsoll_units::{Bytes, Pages};

use super::request::{Answer, Failure, RequestId};
use super::resize::Growing;
use crate::domains::{Known, Order};
use crate::inventory::Record;
use crate::run_id::RunId;

/// Something that the daemon has to do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Set up a VM's process; the answer is [`Input::Launched`](super::Input::Launched).
    Launch {
        run: RunId,
        /// Written before the launch, if the disk has room for it.
        record: Box<Record>,
        grant: Pages,
    },
    /// Raise the VMM's grant by `pages`, to `total`.
    Grant {
        run: RunId,
        pages: Pages,
        total: Pages,
    },
    /// Record that the VMM's grant is `total` now.
    Returned {
        run: RunId,
        total: Pages,
    },
    Send(RunId, ToVmm),
    /// The same, with descriptors.
    SendWith(RunId, ToVmm, Vec<OwnedFd>),
    /// Connect the guest to this port of the host, and tell its VMM by the question's number.
    Dial {
        run: RunId,
        id: u64,
        port: u32,
    },
    /// End the process at once.
    Kill(RunId),
    /// The run is over: close its files and remove its run directory.
    Clear(RunId, VmName),
    /// Write a VM's record, and give the answers afterwards.
    Save(Box<Record>, Vec<(RequestId, Result<Answer, Failure>)>),
    /// Write the record of a VM that had this name before, remove the one that it had, and give the
    /// answers afterwards.
    Rename(VmName, Box<Record>, Vec<(RequestId, Result<Answer, Failure>)>),
    /// Write all pools down, and give the answers afterwards.
    SavePools(Vec<PoolDefinition>, Vec<(RequestId, Result<Answer, Failure>)>),
    /// Remove a VM's record and logs, and give the answers afterwards.
    Forget(VmName, Vec<(RequestId, Result<Answer, Failure>)>),
    /// Grow the file of a disk. The answer is [`Input::Grown`](super::Input::Grown).
    Grow(Box<Growing>),
    /// Write the record of a VM whose image has this size from now on, before its VMM is told. The
    /// answer is [`Input::Kept`](super::Input::Kept).
    Keep(Box<Record>, Box<Growing>, Bytes),
    /// Have the plane of shared pages do something. The answer is
    /// [`Input::Reported`](super::Input::Reported).
    Order(Order),
    /// Record that the VMM will map frames of this domain, for a restarted daemon. The VMM is told
    /// next.
    Joins(RunId, Known),
    /// Record the missing parts of the VM's jail, for a restarted daemon.
    RecordMissingJail(RunId, Vec<JailPart>),
    /// Write an event down, for operators that ask after the daemon was restarted.
    Record(Event),
    Answer(RequestId, Result<Answer, Failure>),
}
