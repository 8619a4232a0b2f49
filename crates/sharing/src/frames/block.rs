use super::bits::{Bits, LEN};
use crate::key::Prefix;

/// A count that says "this many or more": what is more stands elsewhere. Most frames have few
/// references.
pub(super) const MANY: u8 = u8::MAX;

/// 512 frames: 5.3 bytes for each.
///
/// | bytes | are |
/// |---|---|
/// | 0..2048 | the prefix of each frame's hash |
/// | 2048..2560 | how many references each has, up to 255 |
/// | 2560..2688 | a bit for each: referred to; not referred to, with memory |
/// | 2688..2696 | how many there are: 512, but for the last block of a pool |
#[derive(Debug)]
#[repr(C)]
pub(super) struct Block {
    prefixes: [Prefix; LEN],
    counts: [u8; LEN],
    used: Bits,
    lingering: Bits,
    frames: usize,
}

const _: () = assert!(size_of::<Block>() == 2696);

impl Block {
    /// With so many frames.
    pub(super) fn new(frames: usize) -> Self {
        Self {
            prefixes: [Prefix(0); LEN],
            counts: [0; LEN],
            used: Bits::default(),
            lingering: Bits::default(),
            frames,
        }
    }

    /// Frames without references and without memory.
    pub(super) fn free(&self) -> Bits {
        let taken = self.used.union(&self.lingering);
        let taken = if self.frames == LEN { taken } else { taken.union(&Bits::from(self.frames)) };
        taken.complement()
    }

    /// Nobody refers to any frame, and none has memory.
    pub(super) fn is_vacant(&self) -> bool {
        self.used == Bits::default() && !self.lingers()
    }

    pub(super) fn is_used(&self, frame: usize) -> bool {
        self.used.get(frame)
    }

    pub(super) fn is_lingering(&self, frame: usize) -> bool {
        self.lingering.get(frame)
    }

    /// A frame comes into use, with one reference.
    pub(super) fn take(&mut self, frame: usize, prefix: Prefix) {
        self.lingering.clear(frame);
        self.used.set(frame);
        self.prefixes[frame] = prefix;
        self.counts[frame] = 1;
    }

    /// A frame is in use no more but has memory.
    pub(super) fn linger(&mut self, frame: usize) {
        self.used.clear(frame);
        self.lingering.set(frame);
        self.counts[frame] = 0;
    }

    /// These frames have no memory any more. How many had.
    pub(super) fn punched(&mut self, first: usize, frames: usize) -> usize {
        let before = self.lingering.count();
        (first..first + frames).for_each(|frame| self.lingering.clear(frame));
        before - self.lingering.count()
    }

    pub(super) fn lingers(&self) -> bool {
        self.lingering != Bits::default()
    }

    /// The longest run of free frames.
    pub(super) fn longest_free(&self) -> usize {
        self.free().longest()
    }

    /// What can be punched at once: from the first frame that has memory and no reference to the
    /// last one before one that has. Free frames between them are no reason to stop: punching them
    /// does nothing.
    pub(super) fn lingering_run(&self) -> Option<(usize, usize)> {
        let first = self.lingering.next(0)?;
        let end = self.used.next(first).unwrap_or(LEN);
        let last =
            self.lingering.runs().map(|(run, len)| run + len - 1).take_while(|last| *last < end).last()?;
        Some((first, last + 1 - first))
    }

    pub(super) fn prefix(&self, frame: usize) -> Prefix {
        self.prefixes[frame]
    }

    pub(super) fn count(&self, frame: usize) -> &u8 {
        &self.counts[frame]
    }

    pub(super) fn count_mut(&mut self, frame: usize) -> &mut u8 {
        &mut self.counts[frame]
    }
}
