use std::collections::BTreeSet;

use crate::address::{ChunkNo, PAGE, PageSet, SLOTS, Slot};

/// Bytes of a page that are read to see whether it has changed: a line of the processor's cache.
pub(super) const LINE: usize = 64;
/// A page whose sharing was ended `n` times is skipped for 2^n passes, with `n` at most this.
const MOST_SKIPS: u8 = 7;

/// The fingerprint of a page that is to be looked up again. No content has it.
pub(super) const STALE: u16 = 1;

/// The scanner's progress, and what it remembers of pages.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The chunks left in this pass; the next one is the last.
    left: Vec<ChunkNo>,
    pub(super) pass: u32,
    pub(super) notes: Vec<Option<Box<Notes>>>,
    /// Chunks to be scanned first.
    pub(super) prioritized: BTreeSet<ChunkNo>,
    /// Large chunks that are worth breaking up, once that is allowed.
    pub(super) worth_breaking: BTreeSet<ChunkNo>,
    pub(super) may_break: bool,
}

/// What is remembered of a chunk's pages.
pub(super) type Notes = [Note; SLOTS as usize];

/// What is remembered of a page.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Note {
    /// A fingerprint of a part of the content that was last looked up. Zero: none was, and the page
    /// may be missing.
    pub(super) fingerprint: u16,
    /// Passes for which the page is skipped.
    skips: u8,
    /// How often its sharing was ended.
    breaks: u8,
}

impl Scan {
    /// Forgets all pages.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Has pages looked up again when the chunk is scanned next.
    pub(super) fn mark_stale(&mut self, no: ChunkNo, slots: impl Iterator<Item = Slot>) {
        if let Some(Some(notes)) = self.notes.get_mut(no.0) {
            slots.for_each(|slot| notes[usize::from(slot)].fingerprint = STALE);
        }
    }

    /// The next chunk to scan, and whether it is the last of a pass.
    pub(super) fn next(&mut self, chunks: usize, break_large: bool) -> (ChunkNo, bool) {
        self.notes.resize_with(chunks, || None);
        if break_large && !self.may_break {
            self.prioritized.append(&mut self.worth_breaking);
        }
        self.may_break = break_large;
        if let Some(no) = self.prioritized.pop_first() {
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

/// Updates the notes of `pages`, which are present, and of `broken` ones; returns the pages to
/// skip.
pub(super) fn skipped_pages(notes: &mut Notes, pages: &PageSet, broken: &PageSet) -> PageSet {
    for slot in broken.iter() {
        let note = &mut notes[usize::from(slot)];
        note.breaks = note.breaks.saturating_add(1);
        note.skips = 1 << note.breaks.min(MOST_SKIPS);
        note.fingerprint = STALE;
    }
    let mut skipped = PageSet::EMPTY;
    for slot in pages.iter() {
        let note = &mut notes[usize::from(slot)];
        if note.skips > 0 {
            note.skips -= 1;
            skipped.insert(slot);
        }
    }
    skipped
}

/// The pages that were looked up or read.
pub(super) fn looked_up(notes: &Notes) -> PageSet {
    (0..SLOTS).filter(|&slot| notes[usize::from(slot)].fingerprint != 0).collect()
}

/// The offset in a page where a change is looked for: another one in each page, so that what many
/// pages have in common does not hide changes in all of them.
pub(super) fn line(slot: Slot) -> usize {
    usize::from(slot).wrapping_mul(37) % (PAGE / LINE) * LINE
}

/// A number that most likely differs where the bytes differ, and is never zero or [`STALE`].
pub(super) fn fingerprint(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(8).filter_map(|word| word.try_into().ok()).map(u64::from_le_bytes);
    let mixed = words.fold(0x9E37_79B9_7F4A_7C15_u64, |mixed, word| {
        (mixed ^ word).wrapping_mul(0xD6E8_FEB8_6659_FD93).rotate_left(29)
    });
    let fingerprint = (mixed >> 48) as u16;
    fingerprint.max(STALE + 1)
}
