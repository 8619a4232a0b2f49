//! What a page holds, word for word as the `toucher` program writes it: 512 words that depend on
//! the seed and on the page's number, so that a page which is lost, zeroed, stale or swapped with
//! another never verifies.

/// Bytes in a page.
pub(super) const PAGE: usize = 4096;

/// An odd constant far from simple bit patterns (2^64 / golden ratio): consecutive words differ in
/// many bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The page of `seed` and `index`.
pub(super) fn page(seed: u64, index: u64) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    let mut word = start(seed, index);
    for slot in page.chunks_exact_mut(8) {
        slot.copy_from_slice(&word.to_le_bytes());
        word = word.wrapping_add(STEP);
    }
    page
}

/// The same, of which only the first quarter is left: it shrinks to less than half, and is as
/// different from every other page.
pub(super) fn thin_page(seed: u64, index: u64) -> [u8; PAGE] {
    let mut page = page(seed, index);
    page[PAGE / 4..].fill(0);
    page
}

/// A bijective mix (splitmix64's finaliser) of seed and index.
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
    fn pages_differ_by_seed_and_index_and_from_nothing() {
        assert_ne!(page(0, 0), [0; PAGE]);
        assert_ne!(page(7, 3), page(7, 4));
        assert_ne!(page(7, 3), page(8, 3));
        assert_eq!(page(7, 3), page(7, 3));
        assert_ne!(thin_page(7, 3), thin_page(7, 4));
        assert!(thin_page(7, 3).iter().filter(|byte| **byte == 0).count() >= PAGE / 4 * 3);
    }
}
