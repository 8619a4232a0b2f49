use std::os::fd::OwnedFd;

use plimsoll_protocol::sharing::DomainId;
use plimsoll_units::{FrameNo, PageDigest, PageNo, Pages, ReturnReason};

use super::{Known, Owner};
use crate::closing::Closing;
use crate::run_id::RunId;

/// What the core has the plane do.
#[derive(Debug)]
pub(crate) enum Order {
    /// Have a VM take part in the domain of `owner`, or in none.
    Share {
        run: RunId,
        owner: Option<Owner>,
        size: Pages,
        /// Most frames of the domain, if it is new.
        limit: Pages,
        /// The VM moves out of a closed domain if it refers to no more frames than this there.
        room: Pages,
    },
    /// Answer what a VMM asks.
    Ask { run: RunId, domain: DomainId, question: Question, pages: Vec<(PageNo, PageDigest)>, most: Pages },
    /// End references of a VM, as far as it holds them.
    GiveBack { run: RunId, domain: DomainId, pages: Vec<(PageNo, FrameNo)>, reason: ReturnReason },
    /// An earlier daemon started this VM, which has not answered yet.
    Discovered {
        run: RunId,
        /// Domains that it has left; it can still read their frames.
        former: Vec<DomainId>,
        /// Domains whose frames it may map; `None`: any.
        maps: Option<Vec<DomainId>>,
    },
    /// Take over the frames of a VM that an earlier daemon started.
    Recover { run: RunId, size: Pages, references: Box<HeldReferences> },
    /// A VM that was discovered has answered; [`Order::Recover`] came before if it maps frames.
    Answered {
        run: RunId,
        /// As in [`Order::Discovered`]; its full record may name more.
        former: Vec<DomainId>,
    },
    /// A VM's process is gone.
    Ended(RunId),
    /// Do a part of what domains have put off.
    Tidy,
}

/// A question of a VMM, by the number that it gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// What is known of pages of these digests?
    LookUp(u32),
    /// Make frames of the pages that its window shows.
    Offer(u32),
}

impl Order {
    /// The VM whose message the order carries out.
    pub(crate) fn asker(&self) -> Option<RunId> {
        match self {
            Self::Ask { run, .. } | Self::GiveBack { run, .. } => Some(*run),
            _ => None,
        }
    }
}

/// What a VM that an earlier daemon started says of the frames that it holds.
#[derive(Debug)]
pub(crate) struct HeldReferences {
    /// As the earlier daemon wrote it down.
    pub(crate) domain: Known,
    /// The VMM's descriptor of its frames; their file has the domain's number.
    pub(crate) pool: Closing<OwnedFd>,
    /// At most as many as the VM has pages.
    pub(crate) holds: Vec<(PageNo, FrameNo)>,
}
