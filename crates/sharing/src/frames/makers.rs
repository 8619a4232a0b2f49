use std::collections::BTreeMap;
use std::ops::Range;

use plimsoll_units::FrameNo;

use crate::MemberId;

/// Which member made each frame, as runs of frames of one maker. Members offer neighbouring pages,
/// whose frames are neighbours: so there are few runs, where a number for each frame would make the
/// bookkeeping a fifth larger.
#[derive(Debug, Default)]
pub(super) struct Makers(
    /// The first frame of each run and its maker. A run ends where the next one begins.
    BTreeMap<FrameNo, MemberId>,
);

impl Makers {
    /// The maker of a frame that is in use. Of other frames it says anything.
    pub(super) fn of(&self, frame: FrameNo) -> Option<MemberId> {
        self.0.range(..=frame).next_back().map(|(_, maker)| *maker)
    }

    pub(super) fn set(&mut self, frame: FrameNo, maker: MemberId) {
        let before = self.of(frame);
        if before == Some(maker) {
            return;
        }
        let next = FrameNo(frame.0 + 1);
        match self.0.get(&next) {
            // The next run becomes longer.
            Some(following) if *following == maker => drop(self.0.remove(&next)),
            Some(_) => {}
            None => self.0.extend(before.map(|before| (next, before))),
        }
        let previous = frame.0.checked_sub(1).and_then(|previous| self.of(FrameNo(previous)));
        if previous == Some(maker) {
            self.0.remove(&frame);
        } else {
            self.0.insert(frame, maker);
        }
    }

    /// Forgets frames of which none is in use.
    pub(super) fn forget(&mut self, frames: Range<FrameNo>) {
        let behind = self.of(frames.end);
        let gone: Vec<FrameNo> = self.0.range(frames.clone()).map(|(frame, _)| *frame).collect();
        for frame in &gone {
            self.0.remove(frame);
        }
        if !gone.is_empty() && behind != self.of(frames.end) {
            self.0.extend(behind.map(|maker| (frames.end, maker)));
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
        assert_eq!(makers.runs(), 1);
        (1000..2000).for_each(|frame| makers.set(FrameNo(frame), MemberId(2)));
        // The third run is of frames that there are not yet.
        assert_eq!(makers.runs(), 3);
        (0..2000).rev().for_each(|frame| makers.set(FrameNo(frame), MemberId(1)));
        assert_eq!(makers.runs(), 1);
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
                for (frame, maker) in &model {
                    prop_assert_eq!(makers.of(FrameNo(*frame)), Some(*maker));
                }
                prop_assert!(makers.runs() <= 2 * model.len() + 2);
            }
        }
    }
}
