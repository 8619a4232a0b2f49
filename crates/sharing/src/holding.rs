use plimsoll_units::FrameNo;
use zerocopy::FromZeros;

use crate::key::Prefix;

/// What a page of a member has in the domain: nothing (0), a hint (lowest bit 1, above it the
/// prefix of its digest; highest bit 0) or a reference to a frame (highest bit 1, the frame's
/// number below).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromZeros)]
pub(crate) struct Holding(u32);

/// The same, spelled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Nothing,
    Hint(Prefix),
    Reference(FrameNo),
}

const REFERENCE: u32 = 1 << 31;
const HINT: u32 = 1;

impl Holding {
    pub(crate) const NOTHING: Self = Self(0);

    pub(crate) fn hint(prefix: Prefix) -> Self {
        const { assert!(Prefix::BITS + 1 < 32) };
        Self(prefix.0 << 1 | HINT)
    }

    pub(crate) fn reference(frame: FrameNo) -> Self {
        debug_assert!(frame.0 < REFERENCE);
        Self(frame.0 | REFERENCE)
    }

    pub(crate) fn held(self) -> Held {
        match self.0 {
            0 => Held::Nothing,
            bits if bits & REFERENCE != 0 => Held::Reference(FrameNo(bits & !REFERENCE)),
            bits => Held::Hint(Prefix(bits >> 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_page_holds_survives_packing() {
        for prefix in [0, 1, (1 << Prefix::BITS) - 1].map(Prefix) {
            assert_eq!(Holding::hint(prefix).held(), Held::Hint(prefix));
        }
        for frame in [0, 1, (1 << 31) - 1].map(FrameNo) {
            assert_eq!(Holding::reference(frame).held(), Held::Reference(frame));
        }
        assert_eq!(Holding::default().held(), Held::Nothing);
        assert_eq!(std::mem::size_of::<Holding>(), 4);
    }
}
