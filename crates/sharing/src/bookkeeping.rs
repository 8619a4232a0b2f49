//! The steps that change pages, frames and the index together. Each leaves them consistent.

use plimsoll_units::{FrameNo, PageNo, Pages};

use crate::frames::Frames;
use crate::holding::{Held, Holding};
use crate::index::Index;
use crate::key::Key;
use crate::member::Place;
use crate::target::Target;
use crate::{Domain, MemberId};

impl Domain {
    /// The place of a page; `None` where there is no such member or no such page.
    pub(crate) fn place(&self, member: MemberId, page: PageNo) -> Option<Place> {
        self.members.get(member)?.place(page)
    }

    /// What the page at a place holds.
    #[inline]
    pub(crate) fn held(&mut self, place: Place) -> Held {
        self.members.range_of(place).map_or(Held::Nothing, |range| range.holding(place).held())
    }

    /// Makes the page the hint of this digest, in place of a hint that it may be already.
    pub(crate) fn make_hint(&mut self, place: Place, key: Key) {
        self.forget_hint(place);
        let Some(range) = self.members.range_of(place) else { return };
        *range.holding(place) = Holding::hint(key.prefix());
        range.account.hints += 1;
        self.index.set(key, Target::hint(place));
    }

    /// Removes the page's hint, if it is one.
    pub(crate) fn forget_hint(&mut self, place: Place) {
        let Some(range) = self.members.range_of(place) else { return };
        let holding = range.holding(place);
        if let Held::Hint(prefix) = holding.held() {
            *holding = Holding::NOTHING;
            range.account.hints -= 1;
            let removed = self.index.remove(prefix, Target::hint(place));
            debug_assert!(removed, "a hint that is not in the index");
        }
    }

    /// Points the index entry of `key` at `frame`. The page at `place` stops being a hint.
    pub(crate) fn replace_hint(&mut self, place: Place, key: Key, frame: FrameNo) {
        self.index.set(key, Target::frame(frame));
        let Some(range) = self.members.range_of(place) else { return };
        *range.holding(place) = Holding::NOTHING;
        range.account.hints -= 1;
    }

    /// The member whose page a hint is; `None` if that VM has left or is not trusted now.
    pub(crate) fn hint_owner(&mut self, place: Place) -> Option<(MemberId, PageNo)> {
        let range = self.members.range_of(place)?;
        let owner = range.member().filter(|_| !range.account.trust.doubted())?;
        Some((owner, range.page(place)))
    }

    /// Gives the page a reference, which the caller has counted at the frame. The page stops being
    /// a hint.
    pub(crate) fn refer(&mut self, place: Place, frame: FrameNo) {
        self.forget_hint(place);
        let Some(range) = self.members.range_of(place) else { return };
        range.account.references += 1;
        range.account.trust.named();
        *range.holding(place) = Holding::reference(frame);
    }

    /// Drops references and hints of members that left, for at most `most` of their pages.
    pub(crate) fn sweep(&mut self, most: usize) {
        let Some(range) = self.members.vacant() else { return };
        let (first, holdings) = range.clear(most);
        let (mut hints, mut references) = (0, 0);
        let mut ahead = 0;
        for at in 0..holdings.len() {
            while ahead < holdings.len().min(at + AHEAD) {
                if let Held::Hint(prefix) = holdings[ahead].held() {
                    self.index.prefetch(prefix);
                }
                ahead += 1;
            }
            let (place, holding) = (first.0 + u32::try_from(at).expect("a page"), &mut holdings[at]);
            match holding.held() {
                Held::Nothing => continue,
                Held::Hint(prefix) => {
                    let removed = self.index.remove(prefix, Target::hint(Place(place)));
                    debug_assert!(removed, "a hint that is not in the index");
                    hints += 1;
                }
                Held::Reference(frame) => {
                    release(&mut self.frames, &mut self.index, frame);
                    references += 1;
                }
            }
            *holding = Holding::NOTHING;
        }
        range.account.hints -= hints;
        range.account.references -= references;
        self.members.remove_cleared();
    }

    /// Gives memory of freed frames back to the host, at most `most_runs` runs. Returns how many
    /// frames that were.
    pub(crate) fn punch(&mut self, most_runs: usize) -> Pages {
        let mut punched = Pages::ZERO;
        if self.recovering {
            return punched;
        }
        for _ in 0..most_runs {
            if punched >= PUNCH_FRAMES {
                break;
            }
            let Some((first, frames)) = self.frames.lingering_run() else { break };
            if let Err(error) = self.pool.punch(first, frames) {
                // They still take memory and still count as frames; the next call tries again.
                tracing::warn!(%error, ?frames, "memory of freed frames does not go back to the host for now");
                break;
            }
            punched += self.frames.punched(first, frames);
        }
        punched
    }
}

/// How far ahead memory is fetched: as for look-ups.
const AHEAD: usize = 16;

/// Most frames given back to the host in one call: 16 MiB, about a millisecond.
const PUNCH_FRAMES: Pages = Pages(4096);

/// Ends a reference. With the last one the frame leaves the index, and lingers until it is punched.
pub(crate) fn release(frames: &mut Frames, index: &mut Index, frame: FrameNo) {
    if let Some(prefix) = frames.release(frame) {
        // After a recovery two frames may have one content, and only one of them is in the index.
        index.remove(prefix, Target::frame(frame));
    }
}
