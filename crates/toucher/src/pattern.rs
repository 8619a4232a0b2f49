//! What a page holds: 512 words that depend on the seed and on the page's index, so that a page
//! which is lost, zeroed, stale or swapped with another never verifies.

/// Bytes in a page, the granule of patterns (and of the hypervisor's transitions).
pub(crate) const PAGE: usize = 4096;
const WORDS: usize = PAGE / 8;

/// An odd constant far from simple bit patterns (2^64 / golden ratio): consecutive words differ in
/// many bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Fills `page` with the pattern of `seed` and `index`.
pub(crate) fn fill(page: &mut [u64], seed: u64, index: u64) {
    let mut word = start(seed, index);
    for slot in page {
        *slot = word;
        word = word.wrapping_add(STEP);
    }
}

/// Whether every word of `page` is what [`fill`] wrote.
pub(crate) fn holds(page: &[u64], seed: u64, index: u64) -> bool {
    let first = start(seed, index);
    // Without an early exit the loop vectorises; pages that do not match are rare.
    let mut word = first;
    let mut difference = 0;
    for slot in page {
        difference |= slot ^ word;
        word = word.wrapping_add(STEP);
    }
    difference == 0
}

/// Words in a page.
pub(crate) const fn words() -> usize {
    WORDS
}

/// The page's first word: a bijective mix (splitmix64's finaliser) of seed and index.
fn start(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_mul(STEP) ^ index.wrapping_add(1);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_verifies_for_its_own_seed_and_index_only() {
        let mut page = vec![0; WORDS];
        assert!(!holds(&page, 0, 0), "a zeroed page must not verify");
        fill(&mut page, 7, 3);
        assert!(holds(&page, 7, 3));
        assert!(!holds(&page, 7, 4));
        assert!(!holds(&page, 8, 3));
    }

    #[test]
    fn one_flipped_bit_anywhere_is_noticed() {
        let mut page = vec![0; WORDS];
        fill(&mut page, 1, 1);
        for word in [0, 1, WORDS / 2, WORDS - 1] {
            page[word] ^= 1 << 17;
            assert!(!holds(&page, 1, 1), "word {word}");
            page[word] ^= 1 << 17;
        }
        assert!(holds(&page, 1, 1));
    }
}
