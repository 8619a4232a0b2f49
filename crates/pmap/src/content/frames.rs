use std::io;
use std::os::fd::{AsFd, OwnedFd};

use plimsoll_units::{FrameNo, PageDigest, PageNo, Pages, ReturnReason};

use crate::lock::{FRAMES, Lock};
use crate::memory::FrameView;
use crate::sync::Arc;

/// Knows which pages of all VMs are the same. In Plimsoll that is the daemon, at the other end of
/// the VMM's control link. A page is compared in full with the frame that the source names before
/// it is shared. From then on the source is trusted with the page's content: it must keep the frame
/// unchanged while the page refers to it.
///
/// Pages are named by their number in guest RAM, without the holes.
pub trait FrameSource: Send + Sync {
    /// The digest of a page's content, by which the source knows it. The digests of one
    /// [`Pmap::scan_anew`](crate::Pmap::scan_anew) are not those of the next. Called with a chunk
    /// locked: it must not block.
    fn digest(&self, page: &[u8; 4096]) -> PageDigest;

    /// What the source knows of pages with these digests, in the same order; `None` if it cannot be
    /// asked now. Called without any lock that a fault needs; it may block for some seconds.
    fn look_up(&self, pages: &[(PageNo, PageDigest)]) -> Option<Vec<Found>>;

    /// Makes frames of up to [`MOST_OFFERED`] pages with the given content, and names them in the
    /// same order; `None` for a frame that could not be made. The grant has been lowered by the
    /// number of pages offered. What is not made comes back through
    /// [`Pmap::add_grant`](crate::Pmap::add_grant). May block as `look_up` does.
    fn offer(&self, pages: &[(PageNo, PageDigest)], content: &[[u8; 4096]]) -> Option<Vec<Option<FrameNo>>>;

    /// Gives back frames that the pages are not, or not any more, for a `reason`. Called with locks
    /// held, also by the fault thread: it must not block, and must not call the pmap.
    fn give_back(&self, pages: &[(PageNo, FrameNo)], reason: ReturnReason);
}

/// Most pages in one [`FrameSource::offer`].
pub const MOST_OFFERED: usize = 64;

/// What a [`FrameSource`] knows of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing that helps. The source remembers the digest.
    Nothing,
    /// A frame with the same digest. It is held for the page until it is given back.
    Frame(FrameNo),
    /// Another page has the same digest: offer yours.
    Wanted,
}

/// Where shared pages come from.
#[derive(Debug)]
pub struct FramePool {
    /// The file of frames, one after the other, open for reading only.
    pub fd: OwnedFd,
    /// How many there can be.
    pub frames: Pages,
}

/// A [`FramePool`] in use.
pub(crate) struct Pool {
    pub(crate) fd: OwnedFd,
    pub(crate) view: FrameView,
    pub(crate) source: Arc<dyn FrameSource>,
}

impl Pool {
    pub(crate) fn new(pool: FramePool, source: Arc<dyn FrameSource>) -> io::Result<Self> {
        let frames = usize::try_from(pool.frames.0).map_err(io::Error::other)?;
        let view = FrameView::new(pool.fd.as_fd(), frames)?;
        Ok(Self { fd: pool.fd, view, source })
    }
}

/// Mappings that a run of shared pages adds at most: itself, and the run that it cuts off.
pub(crate) const MAPPINGS_OF_RUN: u64 = 2;
/// Mappings that are left to the rest of the process: those between shared pages, three for each
/// sample, stacks, and what breaking a run in two takes.
const RESERVED_MAPPINGS: u64 = 12_000;
/// The kernel's default for the mappings of a process.
const USUAL_MAPPINGS: u64 = 65_530;

/// The pool whose frames pages are shared with, if there is one.
pub(crate) struct Frames {
    pool: Lock<Option<Arc<Pool>>, FRAMES>,
    /// Mappings that pages may take that are, or were, shared.
    most_mappings: u64,
}

impl Frames {
    /// No pool yet. Reads the kernel's limit of mappings.
    pub(crate) fn new() -> Self {
        let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok();
        let limit = limit.and_then(|limit| limit.trim().parse().ok()).unwrap_or(USUAL_MAPPINGS);
        Self { pool: Lock::default(), most_mappings: limit.saturating_sub(RESERVED_MAPPINGS) }
    }

    pub(crate) fn join(&self, pool: Pool) {
        *self.pool.lock() = Some(Arc::new(pool));
    }

    pub(crate) fn leave(&self) {
        *self.pool.lock() = None;
    }

    pub(crate) fn pool(&self) -> Option<Arc<Pool>> {
        self.pool.lock().clone()
    }

    /// Mappings that shared pages, and those that were shared, may take together.
    pub(crate) fn most_mappings(&self) -> u64 {
        self.most_mappings
    }

    /// Mappings that may be taken before only long runs are shared: the last quarter is for those.
    pub(crate) fn most_for_short_runs(&self) -> u64 {
        most_for_short_runs(self.most_mappings)
    }
}

/// The part of `most` mappings that short runs may take.
pub(crate) fn most_for_short_runs(most: u64) -> u64 {
    most / 4 * 3
}
