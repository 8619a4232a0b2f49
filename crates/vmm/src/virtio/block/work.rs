//! Requests that have begun, and what is to be done for one that begins.

use plimsoll_pmap::PpnRange;

use super::super::ring::Spans;
use super::request::Status;
use super::task::Task;
use super::transfer::Transfer;

/// A request that has begun.
pub(super) struct Begun {
    pub(super) head: u16,
    pub(super) status: Spans,
    pub(super) work: Work,
    /// Pages that it fills with content that other VMs may have read too.
    pub(super) common: Vec<PpnRange>,
}

/// What the answer depends on.
pub(super) enum Work {
    Transfer(Transfer),
    Flush,
    Discard,
    Zero { offset: u64, length: u64 },
}

impl Work {
    /// Whether it changes what is on the disk.
    pub(super) fn is_change(&self) -> bool {
        match self {
            Self::Transfer(transfer) => transfer.is_write(),
            Self::Discard | Self::Zero { .. } => true,
            Self::Flush => false,
        }
    }
}

/// How a request begins.
pub(super) enum Planned {
    Transfer(Transfer),
    Task(Task, Work),
    Answer(Status, u32),
}
