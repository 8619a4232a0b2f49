use std::collections::BTreeMap;
use std::ops::Range;

use plimsoll_units::FrameNo;

use crate::MemberId;

/// Which member made each frame, as runs of frames of one maker. Members offer neighbouring pages,
/// whose frames are neighbours: so there are few runs, where a number for each frame would make the
/// bookkeeping a fifth larger.
#[derive(Debug, Default)]
pub(super) struct Makers(
    /// The first frame of each run and its maker; `None`: nothing is known of its frames, as of
    /// those before the first run. A run ends where the next one begins, and two in a row differ.
    BTreeMap<FrameNo, Option<MemberId>>,
);

impl Makers {
    /// The maker of a frame, if it is known.
    pub(super) fn of(&self, frame: FrameNo) -> Option<MemberId> {
        self.0.range(..=frame).next_back().and_then(|(_, maker)| *maker)
    }

    pub(super) fn set(&mut self, frame: FrameNo, maker: MemberId) {
        if self.of(frame) != Some(maker) {
            self.assign(frame..FrameNo(frame.0 + 1), Some(maker));
        }
    }

    /// Forgets the makers of `frames`.
    pub(super) fn forget(&mut self, frames: Range<FrameNo>) {
        self.assign(frames, None);
    }

    fn assign(&mut self, frames: Range<FrameNo>, maker: Option<MemberId>) {
        let before = frames.start.0.checked_sub(1).and_then(|before| self.of(FrameNo(before)));
        let behind = self.of(frames.end);
        let within = self.0.range(frames.start..=frames.end);
        let begins: Vec<FrameNo> = within.map(|(frame, _)| *frame).collect();
        for frame in begins {
            self.0.remove(&frame);
        }
        if before != maker {
            self.0.insert(frames.start, maker);
        }
        if behind != maker {
            self.0.insert(frames.end, behind);
        }
    }

    pub(super) fn runs(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_of_one_maker_are_one_run() {
        let mut makers = Makers::default();
        (0..1000).for_each(|frame| makers.set(FrameNo(frame), MemberId(1)));
        // The last run is of frames that do not exist yet.
        assert_eq!(makers.runs(), 2);
        (1000..2000).for_each(|frame| makers.set(FrameNo(frame), MemberId(2)));
        assert_eq!(makers.runs(), 3);
        (0..2000).rev().for_each(|frame| makers.set(FrameNo(frame), MemberId(1)));
        assert_eq!(makers.runs(), 2);
        makers.forget(FrameNo(0)..FrameNo(2000));
        assert_eq!(makers.runs(), 0);
    }

    proptest! {
        #[test]
        fn each_frame_keeps_its_maker(
            steps in prop::collection::vec((0u32..40, 0u32..3, prop::bool::weighted(0.1)), 1..200),
        ) {
            let mut makers = Makers::default();
            let mut model = BTreeMap::new();
            for (frame, maker, forget) in steps {
                if forget {
                    model.retain(|other, _| !(frame..frame + 8).contains(other));
                    makers.forget(FrameNo(frame)..FrameNo(frame + 8));
                } else {
                    model.insert(frame, MemberId(maker));
                    makers.set(FrameNo(frame), MemberId(maker));
                }
                for frame in 0..50 {
                    prop_assert_eq!(makers.of(FrameNo(frame)), model.get(&frame).copied());
                }
                prop_assert!(makers.runs() <= 2 * model.len());
            }
        }
    }
}
