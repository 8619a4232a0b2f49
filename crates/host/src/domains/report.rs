use std::io;
use std::os::fd::OwnedFd;

use plimsoll_protocol::DomainName;
use plimsoll_protocol::sharing::DomainId;
use plimsoll_sharing::{Found, Stats};
use plimsoll_units::{DigestKey, FrameNo, PageNo, Pages};

use super::{Known, Part};
use crate::run_id::RunId;

/// What came of an [`Order`](super::Order), and what has changed.
#[derive(Debug)]
pub(crate) struct Report {
    /// The VM whose message was carried out.
    pub(crate) asker: Option<RunId>,
    pub(crate) outcome: Outcome,
    /// Domains that have changed; `None`: it is gone.
    pub(crate) domains: Vec<(DomainId, Option<DomainState>)>,
    /// VMs whose part in sharing has changed.
    pub(crate) parts: Vec<(RunId, Part)>,
}

/// What came of an order.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done,
    /// Of [`Order::Share`](super::Order::Share).
    Shared {
        run: RunId,
        shared: Shared,
    },
    Found {
        run: RunId,
        question: u32,
        found: Vec<Found>,
    },
    /// Pages that were offered are frames, or stay as they are.
    Offered {
        run: RunId,
        domain: DomainId,
        question: u32,
        frames: Vec<Option<FrameNo>>,
        /// Frames that are new; no more than pages were offered.
        created: Pages,
        /// Pages of VMs that hold a reference now, and have to be told.
        notices: Vec<(RunId, Vec<(PageNo, FrameNo)>)>,
        /// The pool could not be written: nothing was created from there on.
        error: Option<io::Error>,
    },
    /// Frames were taken over, or could not be.
    Recovered {
        run: RunId,
        result: Result<(), NotRecovered>,
    },
    /// There is `more` to tidy.
    Tidied {
        more: bool,
    },
}

/// Frames that could not be taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotRecovered {
    pub(crate) why: String,
    /// The most that the VM may map of them.
    pub(crate) most_mapped: Pages,
}

/// How a VM shares from now on.
#[derive(Debug)]
pub(crate) struct Shared {
    /// `None`: in no domain. An error: it could not join the domain that it was to join, and why.
    pub(crate) joined: Result<Option<Joined>, String>,
    /// The named domain that it has left to others, whose frames it can still read.
    pub(crate) left: Option<DomainName>,
}

/// A domain that a VM takes part in.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) known: Known,
    /// Most frames that there may be.
    pub(crate) limit: Pages,
    /// What digests of its pages are made with.
    pub(crate) key: DigestKey,
    pub(crate) pool: OwnedFd,
    pub(crate) window: OwnedFd,
}

/// What a domain is and has.
#[derive(Clone, Debug)]
pub(crate) struct DomainState {
    /// `None`: it is one VM's own.
    pub(crate) name: Option<DomainName>,
    /// No content comes into its frames any more.
    pub(crate) closed: bool,
    pub(crate) stats: Stats,
}
