//! The steps that keep pages, frames and the index agreed with each other. Each leaves them so.

use plimsoll_units::{FrameNo, PageNo, Pages};

use crate::frames::Frames;
use crate::holding::{Held, Holding};
use crate::index::Index;
use crate::key::Key;
use crate::member::Place;
use crate::target::{Kind, Target};
use crate::{Domain, MemberId};

impl Domain {
    /// What a page has, and its place; `None` where there is no such member or no such page.
    pub(crate) fn held(&mut self, member: MemberId, page: PageNo) -> Option<(Held, Place)> {
        let room = self.members.get_mut(member)?;
        let held = room.holding(page)?.held();
        Some((held, room.place(page)))
    }

    /// The page becomes the hint of this hash, in place of the one that it may be.
    pub(crate) fn make_hint(&mut self, member: MemberId, page: PageNo, key: Key) {
        self.forget_hint(member, page);
        let Some(room) = self.members.get_mut(member) else { return };
        let place = room.place(page);
        if let Some(holding) = room.holding(page) {
            *holding = Holding::hint(key.prefix());
            room.account.hints += 1;
            self.index.set(key, Target::hint(place));
        }
    }

    /// The page is no hint any more, if it was one.
    pub(crate) fn forget_hint(&mut self, member: MemberId, page: PageNo) {
        if let Some((Held::Hint(_), place)) = self.held(member, page) {
            self.drop_hint(Target::hint(place));
        }
    }

    /// A hint goes, whoever's it is.
    pub(crate) fn drop_hint(&mut self, hint: Target) {
        let Kind::Hint(place) = hint.kind() else { return };
        let Some(room) = self.members.room_of(place) else { return };
        let page = room.page(place);
        let Some(holding) = room.holding(page) else { return };
        if let Held::Hint(prefix) = holding.held() {
            *holding = Holding::NOTHING;
            room.account.hints -= 1;
            let removed = self.index.remove(prefix, hint);
            debug_assert!(removed, "a hint that is not in the index");
        }
    }

    /// Whose page a hint is; `None` where that VM has left or its hashes are worth nothing.
    pub(crate) fn hint_owner(&mut self, hint: Target) -> Option<(MemberId, PageNo)> {
        let Kind::Hint(place) = hint.kind() else { return None };
        let room = self.members.room_of(place)?;
        let owner = room.tenant().filter(|_| !room.account.trust.doubted())?;
        Some((owner, room.page(place)))
    }

    /// The page holds a reference from now on, that the caller has counted at the frame; it is no hint any more.
    pub(crate) fn refer(&mut self, member: MemberId, page: PageNo, frame: FrameNo) {
        self.forget_hint(member, page);
        let Some(room) = self.members.get_mut(member) else { return };
        room.account.references += 1;
        room.account.trust.named();
        if let Some(holding) = room.holding(page) {
            *holding = Holding::reference(frame);
        }
    }

    /// Drops hints of members that left, up to so many pages of them.
    pub(crate) fn sweep(&mut self, most: usize) {
        let Some(room) = self.members.vacant() else { return };
        let (first, holdings) = room.clear(most);
        for (place, holding) in (first.0..).zip(holdings.iter_mut()) {
            if let Held::Hint(prefix) = holding.held() {
                *holding = Holding::NOTHING;
                let removed = self.index.remove(prefix, Target::hint(Place(place)));
                debug_assert!(removed, "a hint that is not in the index");
            }
        }
        self.members.demolish();
    }

    /// Gives memory of freed frames back to the host, up to so many runs of them. How many frames that were.
    pub(crate) fn punch(&mut self, most_runs: usize) -> Pages {
        let mut punched = Pages::ZERO;
        if self.recovering {
            return punched;
        }
        for _ in 0..most_runs {
            let Some((first, frames)) = self.frames.lingering_run() else { break };
            if let Err(error) = self.pool.punch(first, frames) {
                // They still take memory and still count as frames; the next call tries again.
                tracing::warn!(%error, ?frames, "memory of freed frames does not go back to the host for now");
                break;
            }
            self.frames.punched(first, frames);
            punched += frames;
        }
        punched
    }
}

/// A reference ends; with the last one the frame leaves the index, and lingers until it is punched.
pub(crate) fn release(frames: &mut Frames, index: &mut Index, frame: FrameNo) {
    if let Some(prefix) = frames.release(frame) {
        // After a recovery two frames may have one content, and only one of them is in the index.
        index.remove(prefix, Target::frame(frame));
    }
}
