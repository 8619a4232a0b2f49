use plimsoll_units::{FrameNo, PageNo, Pages};

use crate::holding::Held;
use crate::key::Key;
use crate::pool::Page;
use crate::target::{Kind, Target};
use crate::{Domain, MemberId, Offered};

impl Domain {
    /// Takes content that `member` has in pages of these hashes, as far as others have it too or frames of it exist.
    ///
    /// `content` copies page `i` of the offer out of memory that the member may be writing to at the same time; it is called once at most for
    /// each. Only that copy counts: it is hashed, and taken if its hash is the one announced. Neighbouring
    /// pages get neighbouring frames where the pool has room.
    ///
    /// The caller has moved `pages.len()` pages from the member's grant to frames before, and moves back what is not
    /// [created](Offered::created).
    pub fn offer(
        &mut self,
        member: MemberId,
        pages: &[(PageNo, u64)],
        mut content: impl FnMut(usize, &mut Page),
    ) -> Offered {
        let mut offered = Offered::default();
        let mut last: Option<(PageNo, FrameNo)> = None;
        for (i, (page, hash)) in pages.iter().enumerate() {
            let next = last.filter(|(before, _)| before.0.checked_add(1) == Some(page.0));
            let place = Placing { after: next.map(|(_, frame)| frame), room: run_length(&pages[i..]) };
            let frame = self.offer_one(member, (*page, *hash), |copy| content(i, copy), place, &mut offered);
            last = frame.map(|frame| (*page, frame));
            offered.frames.push(frame);
        }
        offered
    }

    fn offer_one(
        &mut self,
        member: MemberId,
        (page, hash): (PageNo, u64),
        content: impl FnOnce(&mut Page),
        placing: Placing,
        offered: &mut Offered,
    ) -> Option<FrameNo> {
        let place = self.place(member, page)?;
        if matches!(self.held(place), Held::Reference(_)) || offered.error.is_some() {
            return None;
        }
        let key = self.secret.key(hash);
        match self.index.find(key)?.kind() {
            Kind::Frame(frame) => {
                self.frames.acquire(frame);
                self.refer(place, frame);
                Some(frame)
            }
            Kind::Hint(same) if same == place => None,
            Kind::Hint(other) => {
                let (owner, others) = self.hint_owner(other)?;
                let mut copy = [0; 4096];
                content(&mut copy);
                if (self.hash)(&copy) != hash {
                    self.members.get_mut(member)?.account.false_offers += 1;
                    return None;
                }
                let frame = self.create(key, &copy, placing, offered)?;
                self.forget_hint(other);
                self.index.set(key, Target::frame(frame));
                self.refer(place, frame);
                self.frames.acquire(frame);
                self.refer(other, frame);
                offered.notices.push((owner, others, frame));
                Some(frame)
            }
        }
    }

    /// A new frame with this content and one reference, not in the index yet.
    fn create(
        &mut self,
        key: Key,
        content: &Page,
        placing: Placing,
        offered: &mut Offered,
    ) -> Option<FrameNo> {
        if self.recovering || self.closed {
            return None;
        }
        let frame = self.frames.create(placing.after, placing.room, key.prefix())?;
        if let Err(error) = self.pool.write(frame, content) {
            self.frames.release(frame);
            offered.error = Some(error);
            return None;
        }
        offered.created += Pages(1);
        Some(frame)
    }
}

/// Where a new frame should be.
#[derive(Clone, Copy, Debug)]
struct Placing {
    /// Behind the frame of the page before.
    after: Option<FrameNo>,
    /// With room for so many, itself included.
    room: usize,
}

/// How many pages at the start are neighbours.
fn run_length(pages: &[(PageNo, u64)]) -> usize {
    1 + pages.windows(2).take_while(|two| two[0].0.0.checked_add(1) == Some(two[1].0.0)).count()
}
