#[cfg(test)]
mod tests;

use crate::{CHUNK_PAGES, Pages};

const WORDS: usize = 8;
const _: () = assert!(WORDS as u64 * 64 == CHUNK_PAGES);

/// A page's place among 512, 0 to 511.
pub type Slot = u16;

/// Number of slots in a [`PageSet`].
pub const SLOTS: Slot = 512;

const _: () = assert!(SLOTS as u64 == CHUNK_PAGES);

/// A set of pages out of 512: a bit for each page of a chunk, or each frame of a block.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct PageSet([u64; WORDS]);

impl PageSet {
    /// No pages.
    pub const EMPTY: Self = Self([0; WORDS]);
    /// All 512 pages.
    pub const FULL: Self = Self([u64::MAX; WORDS]);

    /// The `len` pages from `first` on, cut off at the end.
    pub fn span(first: Slot, len: Slot) -> Self {
        Self::below(first.saturating_add(len)).minus(&Self::below(first))
    }

    /// The pages before `end`.
    fn below(end: Slot) -> Self {
        Self(std::array::from_fn(|word| match usize::from(end).saturating_sub(64 * word) {
            bits @ ..64 => (1 << bits) - 1,
            _ => u64::MAX,
        }))
    }

    /// The one page `slot`, which must be below 512.
    pub fn one(slot: Slot) -> Self {
        Self::span(slot, 1)
    }

    /// Adds `slot`, which must be below 512.
    pub fn insert(&mut self, slot: Slot) {
        self.0[usize::from(slot / 64)] |= 1 << (slot % 64);
    }

    /// Removes `slot`, which must be below 512.
    pub fn remove(&mut self, slot: Slot) {
        self.0[usize::from(slot / 64)] &= !(1 << (slot % 64));
    }

    /// Whether `slot`, which must be below 512, is in the set.
    pub fn contains(&self, slot: Slot) -> bool {
        self.0[usize::from(slot / 64)] & (1 << (slot % 64)) != 0
    }

    /// How many pages are in the set.
    pub fn count(&self) -> Pages {
        Pages(self.0.iter().map(|word| u64::from(word.count_ones())).sum())
    }

    /// Whether no page is in the set.
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// Whether all 512 pages are in the set.
    pub fn is_full(&self) -> bool {
        *self == Self::FULL
    }

    /// The pages behind those of the set.
    pub fn shifted(&self) -> Self {
        let carried = |word: usize| word.checked_sub(1).map_or(0, |before| self.0[before] >> 63);
        Self(std::array::from_fn(|word| self.0[word] << 1 | carried(word)))
    }

    /// The pages that are in either set.
    pub fn union(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    /// The pages that are in both sets.
    pub fn intersection(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    /// The pages that are in this set and not in `other`.
    pub fn minus(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }

    fn zip(&self, other: &Self, op: impl Fn(u64, u64) -> u64) -> Self {
        Self(std::array::from_fn(|i| op(self.0[i], other.0[i])))
    }

    /// The pages of the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..).step_by(64).zip(self.0).flat_map(|(first, mut word)| {
            std::iter::from_fn(move || {
                #[expect(clippy::cast_possible_truncation, reason = "at most 64")]
                let bit = (word != 0).then(|| word.trailing_zeros() as Slot)?;
                word &= word - 1;
                Some(first + bit)
            })
        })
    }

    /// The longest runs of consecutive pages, as (first, length), in order.
    pub fn runs(&self) -> impl Iterator<Item = (Slot, Slot)> + '_ {
        let mut next = 0;
        std::iter::from_fn(move || {
            let first = self.next(next)?;
            let end = self.next_where(first, |word| !word).unwrap_or(SLOTS);
            next = end;
            Some((first, end - first))
        })
    }

    /// The first slot from `from` on whose bit is set in what `of` makes of the words.
    fn next_where(&self, from: Slot, of: impl Fn(u64) -> u64) -> Option<Slot> {
        let mut from = from;
        while let Some(word) = self.0.get(usize::from(from / 64)) {
            let ahead = of(*word) >> (from % 64);
            if ahead != 0 {
                #[expect(clippy::cast_possible_truncation, reason = "at most 64")]
                return Some(from + ahead.trailing_zeros() as Slot);
            }
            from = (from / 64 + 1) * 64;
        }
        None
    }

    /// The first page of the set from `from` on.
    pub fn next(&self, from: Slot) -> Option<Slot> {
        self.next_where(from, |word| word)
    }

    /// The shortest run that has all pages of the set, as (first, length); `None` where it has
    /// none.
    pub fn hull(&self) -> Option<(Slot, Slot)> {
        let first = self.iter().next()?;
        let last = self.iter().last()?;
        Some((first, last - first + 1))
    }

    /// The first `count` pages of the set, or all where it has fewer.
    pub fn first(&self, count: Pages) -> Self {
        let mut left = count.0;
        let mut set = Self::EMPTY;
        for slot in self.iter() {
            if left == 0 {
                break;
            }
            set.insert(slot);
            left -= 1;
        }
        set
    }
}

impl FromIterator<Slot> for PageSet {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut set = Self::EMPTY;
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }
}

impl std::fmt::Debug for PageSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.runs()).finish()
    }
}
