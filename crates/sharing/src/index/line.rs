use zerocopy::FromZeros;

use super::tag::Tag;
use crate::target::Target;

/// Entries of a line: as many as fit a cache line beside what says where more are.
pub(super) const SLOTS: usize = 7;

/// The farthest that an entry may be from its home line, in lines of its group: what `state` can
/// tell.
pub(super) const FARTHEST: usize = 15;

/// Seven entries in the 64 bytes of a cache line, so that looking at all of them costs one access
/// to memory:
///
/// | bytes | are |
/// |---|---|
/// | 0..28 | the lower 32 bits of each tag |
/// | 28..56 | each target |
/// | 56..63 | the upper 8 bits of each tag |
/// | 63 | bits 0..3: how many entries there are, from the first on; 3..7: how many lines further there are entries that are at home here; 7: some of these are in the overflow |
#[derive(Clone, Copy, Debug, Default, FromZeros)]
#[repr(C, align(64))]
pub(super) struct Line {
    low: [u32; SLOTS],
    targets: [Target; SLOTS],
    high: [u8; SLOTS],
    state: u8,
}

const _: () = assert!(size_of::<Line>() == 64);

const LEN: u8 = 0b111;
const REACH_SHIFT: u32 = 3;
const OVERFLOWS: u8 = 1 << 7;

impl Line {
    pub(super) fn len(&self) -> usize {
        usize::from(self.state & LEN)
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() == SLOTS
    }

    /// How many lines further, round the group, there are entries that are at home here. It may be
    /// fewer by now.
    pub(super) fn reach(&self) -> usize {
        usize::from((self.state & !OVERFLOWS) >> REACH_SHIFT)
    }

    /// Entries that are at home here are found up to `lines` further.
    pub(super) fn extend_reach(&mut self, lines: usize) {
        debug_assert!(lines <= FARTHEST);
        if lines > self.reach() {
            let reach = u8::try_from(lines).expect("at most 15") << REACH_SHIFT;
            self.state = self.state & (OVERFLOWS | LEN) | reach;
        }
    }

    /// Whether entries that are at home here may be in the overflow.
    pub(super) fn overflows(&self) -> bool {
        self.state & OVERFLOWS != 0
    }

    pub(super) fn set_overflows(&mut self) {
        self.state |= OVERFLOWS;
    }

    /// The slot of `tag`. (All slots are compared, used or not: eight-fold arithmetic instead of a
    /// loop that may end at any time.)
    #[inline]
    pub(super) fn find(&self, tag: Tag) -> Option<usize> {
        let (low, high) = tag.parts();
        let mut matches = 0_u32;
        for slot in 0..SLOTS {
            matches |= u32::from(self.low[slot] == low && self.high[slot] == high) << slot;
        }
        matches &= (1 << self.len()) - 1;
        (matches != 0).then(|| matches.trailing_zeros() as usize)
    }

    /// The slot of `target`.
    pub(super) fn find_target(&self, target: Target) -> Option<usize> {
        self.targets[..self.len()].iter().position(|found| *found == target)
    }

    pub(super) fn target(&self, slot: usize) -> Target {
        self.targets[slot]
    }

    pub(super) fn set_target(&mut self, slot: usize, target: Target) {
        self.targets[slot] = target;
    }

    /// Adds an entry. There must be room.
    pub(super) fn push(&mut self, tag: Tag, target: Target) {
        let slot = self.len();
        (self.low[slot], self.high[slot]) = tag.parts();
        self.targets[slot] = target;
        self.state += 1;
    }

    /// Removes an entry; the last one takes its slot.
    pub(super) fn remove(&mut self, slot: usize) {
        let last = self.len() - 1;
        self.low[slot] = self.low[last];
        self.high[slot] = self.high[last];
        self.targets[slot] = self.targets[last];
        self.state -= 1;
    }

    /// All entries.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Tag, Target)> + '_ {
        (0..self.len()).map(|slot| (Tag::from_parts(self.low[slot], self.high[slot]), self.targets[slot]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::member::Place;

    #[test]
    fn a_line_keeps_what_it_was_given_whatever_else_it_notes() {
        let mut line = Line::default();
        let tag = |n: u64| Tag::of(Key(n << 24));
        let target = |n: u32| Target::hint(Place(n));
        for n in 0..7 {
            assert!(!line.is_full());
            line.push(tag(n << 30 | 5), target(u32::try_from(n).unwrap()));
        }
        line.extend_reach(FARTHEST);
        line.extend_reach(2);
        line.set_overflows();
        assert!(line.is_full() && line.overflows());
        assert_eq!((line.reach(), line.len()), (FARTHEST, 7));
        // Upper and lower bits both count.
        assert_eq!(
            (line.find(tag(3 << 30 | 5)), line.find(tag(3 << 30 | 6)), line.find(tag(9 << 30 | 5))),
            (Some(3), None, None)
        );
        assert_eq!(line.find_target(target(6)), Some(6));
        line.remove(3);
        assert_eq!(
            (line.find(tag(6 << 30 | 5)), line.find(tag(3 << 30 | 5)), line.len()),
            (Some(3), None, 6)
        );
        assert_eq!(line.entries().count(), 6);
        // What is left of a removed entry is not found.
        line.remove(3);
        assert_eq!(line.find(tag(6 << 30 | 5)), None);
    }
}
