#[cfg(test)]
mod tests;

use plimsoll_units::{CHUNK_PAGES, Pages};

const WORDS: usize = 8;
const _: () = assert!(WORDS as u64 * 64 == CHUNK_PAGES);

/// A page's place in its chunk, 0 to 511.
pub(crate) type Slot = u16;

/// Number of slots in a chunk, in the type of a slot.
pub(crate) const SLOTS: Slot = 512;

/// Most pages that one fault provides where the guest goes from page to page: 64 KiB. Fewer, and a
/// guest that touches memory in order has more faults; more, and pages that it never touches are
/// charged to it.
pub(crate) const MAX_RUN: Slot = 16;
const _: () = assert!(SLOTS as u64 == CHUNK_PAGES);

/// A set of pages of one chunk: a bit for each of its 512 pages.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PageSet([u64; WORDS]);

impl PageSet {
    pub(crate) const EMPTY: Self = Self([0; WORDS]);
    pub(crate) const FULL: Self = Self([u64::MAX; WORDS]);

    /// The `len` pages from `first` on, cut off at the end of the chunk.
    pub(crate) fn span(first: Slot, len: Slot) -> Self {
        Self::below(first.saturating_add(len)).minus(&Self::below(first))
    }

    /// The pages before `end`.
    fn below(end: Slot) -> Self {
        Self(std::array::from_fn(|word| match usize::from(end).saturating_sub(64 * word) {
            bits @ ..64 => (1 << bits) - 1,
            _ => u64::MAX,
        }))
    }

    pub(crate) fn one(slot: Slot) -> Self {
        Self::span(slot, 1)
    }

    /// Adds `slot`, which must be below 512.
    pub(crate) fn insert(&mut self, slot: Slot) {
        self.0[usize::from(slot / 64)] |= 1 << (slot % 64);
    }

    pub(crate) fn contains(&self, slot: Slot) -> bool {
        self.0[usize::from(slot / 64)] & (1 << (slot % 64)) != 0
    }

    pub(crate) fn count(&self) -> Pages {
        Pages(self.0.iter().map(|word| u64::from(word.count_ones())).sum())
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    pub(crate) fn is_full(&self) -> bool {
        *self == Self::FULL
    }

    /// The pages behind those of the set.
    pub(crate) fn shifted(&self) -> Self {
        let carried = |word: usize| word.checked_sub(1).map_or(0, |before| self.0[before] >> 63);
        Self(std::array::from_fn(|word| self.0[word] << 1 | carried(word)))
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    pub(crate) fn minus(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }

    fn zip(&self, other: &Self, op: impl Fn(u64, u64) -> u64) -> Self {
        Self(std::array::from_fn(|i| op(self.0[i], other.0[i])))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
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
    pub(crate) fn runs(&self) -> impl Iterator<Item = (Slot, Slot)> + '_ {
        let mut next = 0;
        std::iter::from_fn(move || {
            let first = self.next_where(next, |word| word)?;
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

    /// The shortest run that has all pages of the set, as (first, length); `None` where it has
    /// none.
    pub(crate) fn hull(&self) -> Option<(Slot, Slot)> {
        let first = self.iter().next()?;
        let last = self.iter().last()?;
        Some((first, last - first + 1))
    }

    /// Whether it is many runs: more than it is worth a system call each.
    pub(crate) fn is_ragged(&self) -> bool {
        /// A system call for a whole chunk costs about as much as a few for single pages.
        const FEW: usize = 16;
        self.runs().nth(FEW).is_some()
    }

    /// The first `count` pages of the set, or all where it has fewer.
    pub(crate) fn first(&self, count: Pages) -> Self {
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
