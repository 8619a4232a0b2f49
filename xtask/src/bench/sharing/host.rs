use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use anyhow::{Context, Result};
use plimsoll_pmap::{Found, FramePool, FrameSource, Pmap};
use plimsoll_sharing::{Domain, MemberId, Stats};
use plimsoll_units::{FrameNo, PageNo, Pages};

/// The daemon's part: one sharing domain, and what its members are still to be told.
pub(crate) struct Host {
    state: Mutex<State>,
    limit: Pages,
}

struct State {
    domain: Domain,
    /// By member.
    notices: Vec<Vec<(PageNo, FrameNo)>>,
}

/// A VM's way to it: a call, where the VMM has a socket.
struct Member {
    host: Arc<Host>,
    id: MemberId,
    pmap: OnceLock<Weak<Pmap>>,
}

impl Host {
    /// A domain for `pages` pages.
    pub(crate) fn new(pages: Pages) -> Result<Arc<Self>> {
        let domain = Domain::new(pages).context("making a sharing domain")?;
        Ok(Arc::new(Self { state: Mutex::new(State { domain, notices: Vec::new() }), limit: pages }))
    }

    /// Lets a VM take part; returns its number.
    pub(crate) fn join(self: &Arc<Self>, pmap: &Arc<Pmap>) -> Result<usize> {
        let mut state = self.state();
        let index = state.notices.len();
        let id = MemberId(u32::try_from(index)?);
        state.domain.join(id, pmap.stats().size).context("joining the sharing domain")?;
        state.notices.push(Vec::new());
        let fd = state.domain.pool().context("opening the frames")?;
        drop(state);
        let source =
            Arc::new(Member { host: Arc::clone(self), id, pmap: OnceLock::from(Arc::downgrade(pmap)) });
        let pool = FramePool { fd, frames: self.limit };
        pmap.join_frames(pool, source).context("mapping the frames")?;
        Ok(index)
    }

    /// Tells a VM what others have found for it.
    pub(crate) fn deliver(&self, member: usize, pmap: &Pmap) {
        let notices = std::mem::take(&mut self.state().notices[member]);
        if !notices.is_empty() {
            pmap.share(&notices);
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        self.state().domain.stats()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FrameSource for Member {
    fn look_up(&self, pages: &[(PageNo, u64)]) -> Option<Vec<Found>> {
        use plimsoll_sharing::Found as Known;
        let found = self.host.state().domain.look_up(self.id, pages);
        let of = |known| match known {
            Known::New | Known::Busy => Found::Nothing,
            Known::Frame(frame) => Found::Frame(frame),
            Known::Wanted => Found::Wanted,
        };
        Some(found.into_iter().map(of).collect())
    }

    fn offer(&self, pages: &[(PageNo, u64)], content: &[[u8; 4096]]) -> Option<Vec<Option<FrameNo>>> {
        let mut state = self.host.state();
        let offered = state.domain.offer(self.id, pages, |i, page| *page = content[i]);
        for (member, page, frame) in offered.notices {
            if let Some(notices) = usize::try_from(member.0).ok().and_then(|i| state.notices.get_mut(i)) {
                notices.push((page, frame));
            }
        }
        drop(state);
        if let Some(pmap) = self.pmap.get().and_then(Weak::upgrade) {
            pmap.add_grant(Pages(pages.len() as u64).saturating_sub(offered.created));
        }
        Some(offered.frames)
    }

    fn give_back(&self, pages: &[(PageNo, FrameNo)], mismatched: bool) {
        self.host.state().domain.give_back(self.id, pages, mismatched);
    }
}
