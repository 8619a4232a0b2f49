use plimsoll_units::{PageSet, Pages, SLOTS, Slot};

use crate::key::Prefix;

/// A count that says "this many or more". Further references are counted in
/// [`Frames`](super::Frames); most frames have few.
pub(super) const MANY: u8 = u8::MAX;

/// A prefix, with [`UNCONFIRMED`] or without.
#[derive(Clone, Copy, Debug)]
struct Marked(u32);

/// No member other than its maker has confirmed the frame.
const UNCONFIRMED: u32 = 1 << 31;
const _: () = assert!(Prefix::BITS < 32);

/// 512 frames: 5.3 bytes for each.
///
/// | bytes | are |
/// |---|---|
/// | 0..2048 | the prefix of each frame's digest, and a bit: its maker is to blame for it |
/// | 2048..2560 | how many references each has, up to 255 |
/// | 2560..2688 | a bit for each: in use; lingering |
/// | 2688..2690 | the number of frames: 512, but for the last block of a pool |
#[derive(Debug)]
#[repr(C)]
pub(super) struct Block {
    prefixes: [Marked; SLOTS as usize],
    counts: [u8; SLOTS as usize],
    used: PageSet,
    lingering: PageSet,
    frames: Slot,
}

const _: () = assert!(size_of::<Block>() == 2696);

impl Block {
    /// A block of `frames` frames.
    pub(super) fn new(frames: Slot) -> Self {
        Self {
            prefixes: [Marked(0); SLOTS as usize],
            counts: [0; SLOTS as usize],
            used: PageSet::EMPTY,
            lingering: PageSet::EMPTY,
            frames,
        }
    }

    /// Frames without references and without memory.
    pub(super) fn free(&self) -> PageSet {
        let taken = self.used.union(&self.lingering);
        PageSet::span(0, self.frames).minus(&taken)
    }

    /// Whether no frame has references or memory.
    pub(super) fn is_vacant(&self) -> bool {
        self.used.is_empty() && !self.lingers()
    }

    pub(super) fn is_used(&self, frame: Slot) -> bool {
        self.used.contains(frame)
    }

    pub(super) fn is_lingering(&self, frame: Slot) -> bool {
        self.lingering.contains(frame)
    }

    /// Puts a frame into use, with one reference. Nobody has confirmed it yet.
    pub(super) fn take(&mut self, frame: Slot, prefix: Prefix) {
        self.lingering.remove(frame);
        self.used.insert(frame);
        self.prefixes[usize::from(frame)] = Marked(prefix.0 | UNCONFIRMED);
        self.counts[usize::from(frame)] = 1;
    }

    /// Takes a frame out of use; it still has memory.
    pub(super) fn linger(&mut self, frame: Slot) {
        self.used.remove(frame);
        self.lingering.insert(frame);
        self.counts[usize::from(frame)] = 0;
    }

    /// Takes note that these frames have no memory any more, and returns how many had.
    pub(super) fn punched(&mut self, first: Slot, frames: Slot) -> Pages {
        let before = self.lingering.count();
        self.lingering = self.lingering.minus(&PageSet::span(first, frames));
        before - self.lingering.count()
    }

    pub(super) fn lingers(&self) -> bool {
        !self.lingering.is_empty()
    }

    /// The length of the longest run of free frames.
    pub(super) fn longest_free(&self) -> Slot {
        longest_run(&self.free())
    }

    /// The run that can be punched at once: from the first lingering frame to the last one before
    /// the next frame in use. Free frames may lie between them: punching them does nothing.
    pub(super) fn lingering_run(&self) -> Option<(Slot, Slot)> {
        let first = self.lingering.next(0)?;
        let end = self.used.next(first).unwrap_or(SLOTS);
        let last =
            self.lingering.runs().map(|(run, len)| run + len - 1).take_while(|last| *last < end).last()?;
        Some((first, last + 1 - first))
    }

    pub(super) fn prefix(&self, frame: Slot) -> Prefix {
        Prefix(self.prefixes[usize::from(frame)].0 & !UNCONFIRMED)
    }

    /// Whether a member other than its maker has confirmed a frame.
    pub(super) fn is_confirmed(&self, frame: Slot) -> bool {
        self.prefixes[usize::from(frame)].0 & UNCONFIRMED == 0
    }

    pub(super) fn confirm(&mut self, frame: Slot) {
        self.prefixes[usize::from(frame)].0 &= !UNCONFIRMED;
    }

    pub(super) fn count(&self, frame: Slot) -> &u8 {
        &self.counts[usize::from(frame)]
    }

    pub(super) fn count_mut(&mut self, frame: Slot) -> &mut u8 {
        &mut self.counts[usize::from(frame)]
    }
}

/// The length of the longest run in `frames`.
pub(super) fn longest_run(frames: &PageSet) -> Slot {
    frames.runs().map(|(_, len)| len).max().unwrap_or(0)
}
