use plimsoll_units::{FrameNo, PageDigest, PageNo, Pages};

use crate::holding::Held;
use crate::key::Key;
use crate::member::Place;
use crate::pool::Page;
use crate::target::Kind;
use crate::{Domain, MemberId, Offered};

/// Frames that are written at once. One by one takes 2.3 us a frame (Linux 6.18), eight at a time
/// 1.5, and 64 hardly less.
const AT_ONCE: usize = 16;

impl Domain {
    /// Takes the content of `member`'s pages of these digests, if other pages or frames have the
    /// same.
    ///
    /// `content` copies page `i` of the offer out of memory that the member may be writing to at
    /// the same time; it is called once at most for each. Only that copy counts: it is taken if its
    /// digest is the one announced. Neighbouring pages get neighbouring frames where the pool has
    /// room.
    ///
    /// The caller has moved `pages.len()` pages from the member's grant to frames before, and moves
    /// back what is not [created](Offered::created).
    pub fn offer(
        &mut self,
        member: MemberId,
        pages: &[(PageNo, PageDigest)],
        mut content: impl FnMut(usize, &mut Page),
    ) -> Offered {
        let mut offer = Offer::default();
        let mut last: Option<(PageNo, FrameNo)> = None;
        for (i, (page, digest)) in pages.iter().enumerate() {
            let next = last.filter(|(before, _)| before.0.checked_add(1) == Some(page.0));
            let place = Placing { after: next.map(|(_, frame)| frame), room: run_length(&pages[i..]) };
            let frame = self.offer_one(member, (*page, *digest), |copy| content(i, copy), place, &mut offer);
            last = frame.map(|frame| (*page, frame));
            offer.outcome.frames.push(frame);
        }
        self.fill(&mut offer);
        offer.outcome
    }

    fn offer_one(
        &mut self,
        member: MemberId,
        (page, digest): (PageNo, PageDigest),
        content: impl FnOnce(&mut Page),
        placing: Placing,
        offer: &mut Offer,
    ) -> Option<FrameNo> {
        let place = self.place(member, page)?;
        let key = self.secret.key(digest);
        if offer.concerns(place) {
            self.fill(offer);
        }
        if matches!(self.held(place), Held::Reference(_)) {
            return None;
        }
        let mut target = self.index.find(key)?.kind();
        if let Kind::Hint(other) = target
            && offer.concerns(other)
        {
            self.fill(offer);
            target = self.index.find(key)?.kind();
        }
        if offer.outcome.error.is_some() {
            return None;
        }
        match target {
            Kind::Frame(frame) => {
                self.frames.acquire(frame);
                self.refer(place, frame);
                Some(frame)
            }
            Kind::Hint(same) if same == place => None,
            Kind::Hint(other) => {
                let owner = self.hint_owner(other)?;
                let mut copy = [0; 4096];
                content(&mut copy);
                if (self.digest)(&self.digest_key, &copy) != digest {
                    self.members.get_mut(member)?.account.false_offers += 1;
                    return None;
                }
                let frame = self.create(member, key, placing, offer)?;
                offer.new.push(New { place, other, owner, key, frame, index: offer.outcome.frames.len() });
                offer.content.push(copy);
                Some(frame)
            }
        }
    }

    /// Makes a frame with one reference, without content and not in the index yet. The frames
    /// before it are those of the offer in the same state.
    fn create(&mut self, maker: MemberId, key: Key, placing: Placing, offer: &mut Offer) -> Option<FrameNo> {
        if self.recovering || self.closed {
            return None;
        }
        let frame = self.frames.create(placing.after, placing.room, key.prefix(), maker)?;
        let follows = offer.new.last().is_none_or(|last| last.frame.0.checked_add(1) == Some(frame.0));
        if !follows || offer.new.len() == AT_ONCE {
            self.fill(offer);
            if offer.outcome.error.is_some() {
                self.frames.release(frame);
                return None;
            }
        }
        Some(frame)
    }

    /// Writes the new frames of an offer, which are neighbours, and enters them for both pages that
    /// have the content. If they cannot be written, they are dropped.
    fn fill(&mut self, offer: &mut Offer) {
        let Some(first) = offer.new.first() else { return };
        let written = self.pool.write(first.frame, &offer.content);
        offer.content.clear();
        if let Err(error) = written {
            offer.outcome.error = Some(error);
            for New { frame, index, .. } in offer.new.drain(..) {
                self.frames.release(frame);
                offer.outcome.frames[index] = None;
            }
            return;
        }
        for New { place, other, owner: (owner, page), key, frame, .. } in offer.new.drain(..) {
            self.replace_hint(other, key, frame);
            self.refer(place, frame);
            self.frames.acquire(frame);
            self.refer(other, frame);
            offer.outcome.created += Pages(1);
            offer.outcome.notices.push((owner, page, frame));
        }
    }
}

/// An offer on its way.
#[derive(Default)]
struct Offer {
    outcome: Offered,
    /// New frames that are still to be written, one behind the other, and their content.
    new: Vec<New>,
    content: Vec<Page>,
}

impl Offer {
    /// Whether what a place holds depends on frames that are still to be written.
    fn concerns(&self, place: Place) -> bool {
        self.new.iter().any(|new| new.place == place || new.other == place)
    }
}

/// A frame that is to be written.
struct New {
    /// The page whose content was offered, and the other page that has it.
    place: Place,
    other: Place,
    owner: (MemberId, PageNo),
    key: Key,
    frame: FrameNo,
    /// The page's index in the offer.
    index: usize,
}

/// Where a new frame should be.
#[derive(Clone, Copy, Debug)]
struct Placing {
    /// Behind the frame of the page before.
    after: Option<FrameNo>,
    /// At the start of a run of this many free frames.
    room: usize,
}

/// How many pages at the start are neighbours.
fn run_length(pages: &[(PageNo, PageDigest)]) -> usize {
    1 + pages.windows(2).take_while(|two| two[0].0.0.checked_add(1) == Some(two[1].0.0)).count()
}
