use std::collections::BTreeSet;

use super::ScanOrder;
use crate::address::{ChunkNo, PAGE, PageSet, SLOTS, Slot};

/// Bytes of a page that are looked at to see whether it has changed: a line of the processor's cache.
pub(super) const LINE: usize = 64;
/// A page that has been broken so often rests for 2^this passes.
const LONGEST_REST: u8 = 7;

/// The print of a page that was there and is to be looked at again: none has it.
pub(super) const LOOK_AGAIN: u16 = 1;

/// Where the scanner has come to.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// What is left of this pass, the next one last.
    left: Vec<ChunkNo>,
    pub(super) pass: u32,
    pub(super) notes: Vec<Option<Box<Notes>>>,
    /// To be looked at first.
    pub(super) hurried: BTreeSet<ChunkNo>,
    /// Large chunks that would be worth breaking up.
    pub(super) promising: BTreeSet<ChunkNo>,
    pub(super) may_break: bool,
}

/// What is remembered of a chunk's pages.
pub(super) type Notes = [Note; SLOTS as usize];

/// What is remembered of a page.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Note {
    /// Of a part of its content when it was last looked up. Zero: it was not, and may not be there.
    pub(super) print: u16,
    /// Passes for which it is left alone.
    rest: u8,
    /// Times that it was broken.
    breaks: u8,
}

impl Scan {
    /// Every page is news again.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Pages are to be looked up again when the chunk is scanned next.
    pub(super) fn look_again(&mut self, no: ChunkNo, slots: impl Iterator<Item = Slot>) {
        if let Some(Some(notes)) = self.notes.get_mut(no.0) {
            slots.for_each(|slot| notes[usize::from(slot)].print = LOOK_AGAIN);
        }
    }

    /// The chunk to look at, and whether it is the last of a pass.
    pub(super) fn next(&mut self, chunks: usize, order: ScanOrder) -> (ChunkNo, bool) {
        self.notes.resize_with(chunks, || None);
        if order.break_large && !self.may_break {
            self.hurried.append(&mut self.promising);
        }
        self.may_break = order.break_large;
        if let Some(no) = self.hurried.pop_first() {
            return (no, false);
        }
        if self.left.is_empty() {
            self.pass = self.pass.wrapping_add(1);
            self.left = (0..chunks).map(ChunkNo).collect();
            fastrand::shuffle(&mut self.left);
        }
        let next = self.left.pop().unwrap_or(ChunkNo(0));
        (next, self.left.is_empty())
    }
}

/// Brings notes up to date with `pages` that are there and `broken` ones; returns those that rest.
pub(super) fn resting(notes: &mut Notes, pages: &PageSet, broken: &PageSet) -> PageSet {
    for slot in broken.iter() {
        let note = &mut notes[usize::from(slot)];
        note.breaks = note.breaks.saturating_add(1);
        note.rest = 1 << note.breaks.min(LONGEST_REST);
        note.print = LOOK_AGAIN;
    }
    let mut rests = PageSet::EMPTY;
    for slot in pages.iter() {
        let note = &mut notes[usize::from(slot)];
        if note.rest > 0 {
            note.rest -= 1;
            rests.insert(slot);
        }
    }
    rests
}

/// The pages that were looked up, or looked at.
pub(super) fn looked_up(notes: &Notes) -> PageSet {
    (0..SLOTS).filter(|&slot| notes[usize::from(slot)].print != 0).collect()
}

/// Where in a page it is looked whether it has changed: elsewhere in each, so that what many pages have in common does not hide
/// changes in all of them.
pub(super) fn line(slot: Slot) -> usize {
    usize::from(slot).wrapping_mul(37) % (PAGE / LINE) * LINE
}

/// A number that is likely to be another one where the bytes are others, and never zero or [`LOOK_AGAIN`].
pub(super) fn print(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(8).filter_map(|word| word.try_into().ok()).map(u64::from_le_bytes);
    let mixed = words.fold(0x9E37_79B9_7F4A_7C15_u64, |mixed, word| {
        (mixed ^ word).wrapping_mul(0xD6E8_FEB8_6659_FD93).rotate_left(29)
    });
    let print = (mixed >> 48) as u16;
    print.max(LOOK_AGAIN + 1)
}
