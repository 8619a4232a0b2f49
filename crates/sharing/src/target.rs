use plimsoll_units::FrameNo;
use zerocopy::FromZeros;

use crate::member::Place;

/// What an entry of the index stands for, in 32 bits: a frame, with the highest bit set, or a hint,
/// by its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromZeros)]
pub(crate) struct Target(u32);

const FRAME: u32 = 1 << 31;

/// The same, spelled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Frame(FrameNo),
    Hint(Place),
}

impl Target {
    pub(crate) fn frame(frame: FrameNo) -> Self {
        debug_assert!(frame.0 < FRAME);
        Self(frame.0 | FRAME)
    }

    pub(crate) fn hint(place: Place) -> Self {
        debug_assert!(place.0 < FRAME);
        Self(place.0)
    }

    pub(crate) fn kind(self) -> Kind {
        if self.0 & FRAME == 0 { Kind::Hint(Place(self.0)) } else { Kind::Frame(FrameNo(self.0 & !FRAME)) }
    }
}
