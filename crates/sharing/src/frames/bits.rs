use plimsoll_units::CHUNK_PAGES;

/// Bits in a set: one for each frame of a block.
pub(super) const LEN: usize = {
    assert!(CHUNK_PAGES == 512);
    512
};
const WORD: usize = u64::BITS as usize;

/// Which frames of a block are of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits([u64; LEN / WORD]);

impl Bits {
    /// All from `first` on.
    pub(super) fn from(first: usize) -> Self {
        let mut bits = Self::default();
        (first..LEN).for_each(|bit| bits.set(bit));
        bits
    }

    pub(super) fn get(&self, bit: usize) -> bool {
        self.0[bit / WORD] >> (bit % WORD) & 1 == 1
    }

    pub(super) fn set(&mut self, bit: usize) {
        self.0[bit / WORD] |= 1 << (bit % WORD);
    }

    pub(super) fn clear(&mut self, bit: usize) {
        self.0[bit / WORD] &= !(1 << (bit % WORD));
    }

    pub(super) fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    pub(super) fn complement(&self) -> Self {
        Self(self.0.map(|word| !word))
    }

    /// The first that is set, from `from` on.
    pub(super) fn next(&self, from: usize) -> Option<usize> {
        let mut word = from / WORD;
        let mut bits = self.0.get(word)? & (u64::MAX << (from % WORD));
        while bits == 0 {
            word += 1;
            bits = *self.0.get(word)?;
        }
        Some(word * WORD + bits.trailing_zeros() as usize)
    }

    /// The length of the longest run of set bits.
    pub(super) fn longest(&self) -> usize {
        self.runs().map(|(_, len)| len).max().unwrap_or(0)
    }

    /// All maximal runs of set bits, each as its first and its length.
    pub(super) fn runs(&self) -> impl Iterator<Item = (usize, usize)> {
        let (ones, zeros) = (*self, self.complement());
        let mut from = 0;
        std::iter::from_fn(move || {
            let first = ones.next(from)?;
            let end = zeros.next(first).unwrap_or(LEN);
            from = end;
            Some((first, end - first))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_tell_all_bits(set in prop::collection::btree_set(0usize..LEN, 0..LEN)) {
            let mut bits = Bits::default();
            set.iter().for_each(|bit| bits.set(*bit));
            let told: Vec<usize> = bits.runs().flat_map(|(first, len)| first..first + len).collect();
            prop_assert_eq!(&told, &set.iter().copied().collect::<Vec<_>>());
            prop_assert!(bits.runs().zip(bits.runs().skip(1)).all(|(a, b)| a.0 + a.1 < b.0));
            prop_assert_eq!(bits.count(), set.len());
            set.iter().for_each(|bit| bits.clear(*bit));
            prop_assert_eq!(bits, Bits::default());
        }
    }

    #[test]
    fn the_rest_of_a_block_is_what_is_behind_its_first() {
        assert_eq!(Bits::from(500).runs().collect::<Vec<_>>(), [(500, 12)]);
        assert_eq!(Bits::from(LEN).count(), 0);
    }
}
