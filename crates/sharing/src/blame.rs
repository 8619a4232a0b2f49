//! Frames that differ from pages of the same digest, and which member pays for that.
//!
//! Two contents that the index takes for one are an accident (`index/tag.rs`). If a guest could
//! make them, which takes two contents of one digest, it could spoil the sharing of a content: it
//! makes a frame of the other one. The members that have the content find that frame again and
//! again, and only its maker is to blame. But a member's word that its page differs proves nothing:
//! a VMM may say so of any frame that it can name. Hence:
//!
//! - A mismatch never counts against the member that reports it, unless it made the frame itself.
//! - One member's word takes no other's trust. After the word of two members the frame leaves the
//!   index: the content that they have can become a hint and a frame of its own. The pages that
//!   hold the frame keep it.
//! - Both mismatches then count against the frame's maker, unless another member has confirmed the
//!   frame. A member confirms a frame by keeping it: what it still holds at its next look-up it has
//!   compared. After a restart of the daemon the maker is not known, and the first member that
//!   reports a frame stands for it.
//!
//! Two hostile members can together take digests off the index, and trust from the maker of frames
//! that nobody has confirmed yet.

use std::mem;

use plimsoll_units::FrameNo;

use crate::holding::Held;
use crate::target::Target;
use crate::{Domain, MemberId};

impl Domain {
    /// Takes note that `member` reports a mismatch with `frame`, to which it holds a reference.
    pub(crate) fn mismatch(&mut self, member: MemberId, frame: FrameNo) {
        let maker = self.frames.maker(frame);
        if maker == Some(member) {
            self.distrust(member);
            return;
        }
        let Some(prefix) = self.frames.accuse(frame, member) else { return };
        self.index.remove(prefix, Target::frame(frame));
        if let Some(maker) = maker {
            // For each of the two members.
            self.distrust(maker);
            self.distrust(maker);
        }
    }

    /// Counts a digest that proved false against `member`.
    fn distrust(&mut self, member: MemberId) {
        if let Some(range) = self.members.get_mut(member) {
            range.account.trust.proved_false();
        }
    }

    /// Takes note that `member` looks up pages again: it has compared those that the last look-up
    /// named frames for, and has given back what differs.
    pub(crate) fn confirm_compared(&mut self, member: MemberId) {
        let Some(range) = self.members.get_mut(member) else { return };
        for (place, frame) in mem::take(&mut range.uncompared) {
            if range.holding(place).held() == Held::Reference(frame) {
                self.frames.confirm(frame);
            }
        }
    }
}
