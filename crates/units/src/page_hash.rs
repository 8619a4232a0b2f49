use twox_hash::XxHash3_64;

/// The hash of a page's content: XXH3, 64 bits, no seed.
///
/// It finds pages that are probably equal and proves nothing: a guest that chooses its pages'
/// content can make two with one hash. So code that acts on equal hashes compares the pages first
/// (Waldspurger 2002, section 4.1). Daemon and VMMs must agree on it, so another function is
/// another version of the control protocol.
pub fn page_hash(page: &[u8; 4096]) -> u64 {
    XxHash3_64::oneshot(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_xxh3_for_ever() {
        // Values of the reference implementation (XXH3_64bits, xxHash 0.8).
        assert_eq!(page_hash(&[0; 4096]), 0x93d7_6fe1_48c6_89ba);
        let mut page = [0; 4096];
        page.iter_mut().zip((0..=250).cycle()).for_each(|(byte, value)| *byte = value);
        assert_eq!(page_hash(&page), 0x7135_ffa5_04f1_bc71);
    }
}
