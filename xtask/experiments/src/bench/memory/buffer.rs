//! Pages with known content, aligned as direct I/O wants them.

/// A page of memory, aligned as direct I/O wants it.
#[derive(Clone)]
#[repr(C, align(4096))]
pub(crate) struct PageBuffer(pub(crate) [u8; 4096]);

impl PageBuffer {
    pub(crate) const ZERO: Self = Self([0; 4096]);

    /// A page as programs have them: records of a pointer, a small number and nothing, which LZ4
    /// makes less than half. The first word is `number`.
    pub(crate) fn records(number: u64) -> Self {
        let mut page = Self::ZERO;
        let mut random = Random(number);
        for record in page.0.chunks_exact_mut(24) {
            record[..8].copy_from_slice(&(0x7f12_3400_0000 | random.next() & 0xff_ffff).to_le_bytes());
            record[8] = random.next().to_le_bytes()[0];
        }
        page.0[..8].copy_from_slice(&number.to_le_bytes());
        page
    }

    pub(crate) fn first_word(&self) -> u64 {
        self.0.first_chunk().map_or(0, |word| u64::from_ne_bytes(*word))
    }

    /// A page that does not shrink. The first word is `number`.
    pub(crate) fn noise(number: u64) -> Self {
        let mut page = Self::ZERO;
        let mut random = Random(number);
        for word in page.0.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next().to_le_bytes());
        }
        page.0[..8].copy_from_slice(&number.to_le_bytes());
        page
    }
}

/// Numbers that look random, the same in every run (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Puts `items` into random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.next() % (i as u64 + 1);
            items.swap(i, usize::try_from(j).unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_told_apart_by_their_first_word() {
        for number in [0, 7, u64::MAX] {
            assert_eq!(PageBuffer::records(number).first_word(), number);
            assert_eq!(PageBuffer::noise(number).first_word(), number);
        }
        assert!(PageBuffer::noise(1).0[8..] != PageBuffer::noise(2).0[8..]);
    }

    #[test]
    fn shuffling_loses_nothing() {
        let mut items: Vec<u32> = (0..100).collect();
        Random(1).shuffle(&mut items);
        assert!(!items.is_sorted());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
