use std::io;

use plimsoll_units::{Bytes, FrameNo, PageNo, Pages};

/// A member of a domain: a VM, by a number that the caller chooses and never uses for two at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u32);

/// What a look-up found for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing has this digest: the page is now a hint, for others to find. So is a page that
    /// already was one of this digest.
    New,
    /// This frame has the digest. The page holds a reference to it now.
    Frame(FrameNo),
    /// Another page has the same digest: offer yours.
    Wanted,
    /// Nothing is to be done: the page holds a reference already, is outside the VM, too many of
    /// the VM's digests proved false lately, or another page has the same digest but the domain is
    /// closed.
    Busy,
}

/// What became of an offer.
#[derive(Debug, Default)]
pub struct Offered {
    /// For each page offered, in order, the frame with its content, to which the page holds a
    /// reference now. `None`: it stays as it is.
    pub frames: Vec<Option<FrameNo>>,
    /// Frames that the pool did not have before. The others of `frames` existed.
    pub created: Pages,
    /// Pages that were hints and hold a reference to these frames now. Their VMs must be told; they
    /// may include the VM that offered.
    pub notices: Vec<(MemberId, PageNo, FrameNo)>,
    /// The pool could not be written: nothing was created from there on. The host is probably out
    /// of memory.
    pub error: Option<io::Error>,
}

/// What [`Domain::give_back`](crate::Domain::give_back) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenBack {
    /// Frames whose memory the host has again.
    pub freed: Pages,
    /// References that ended.
    pub accepted: u64,
    /// What was given back and not held. A correct VMM sends none.
    pub ignored: u64,
}

/// Frames that were freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Frames whose memory the host has again.
    pub frames: Pages,
    /// There is more to do: call [`Domain::tidy`](crate::Domain::tidy) again, soon.
    pub more: bool,
}

/// What a domain has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames that take machine memory. This is what the ledger counts. Includes `lingering`.
    pub frames: Pages,
    /// Of `frames`, those without references, whose memory [`Domain::tidy`](crate::Domain::tidy)
    /// has yet to give back.
    pub lingering: Pages,
    /// Pages of members that hold a reference.
    pub references: Pages,
    /// The memory that the members would need in addition if each had its own pages.
    pub saved: Pages,
    /// Pages that are known by their digest and not shared yet.
    pub hints: Pages,
    /// Memory that all bookkeeping takes: index, references and hints.
    pub index: Bytes,
    /// The most frames that there may be.
    pub limit: Pages,
}

/// What a member has of its domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberStats {
    /// Its pages that hold a reference.
    pub references: Pages,
    /// Its pages that are known by their digest and not shared yet.
    pub hints: Pages,
    /// Its part of the domain's frames, by references, rounded up: what it is charged for.
    pub charge: Pages,
    /// References that it gave back because its page had other content than the frame.
    pub false_matches: u64,
    /// Pages that it offered with other content than it had announced.
    pub false_offers: u64,
    /// What it gave back and did not hold.
    pub false_returns: u64,
    /// Too many of its frames proved false lately: what it looks up is not answered for now.
    pub doubted: bool,
}
