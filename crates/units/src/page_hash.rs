use xxhash_rust::xxh3::xxh3_64;

/// The hash of a page's content: XXH3, 64 bits, no seed.
///
/// It finds pages that are probably equal and proves nothing: who chooses a page's content can make two that have one hash. Whoever
/// acts on equal hashes compares the pages first (Waldspurger 2002, section 4.1). Daemon and VMMs must agree on
/// it, so another function is another version of the control protocol.
pub fn page_hash(page: &[u8; 4096]) -> u64 {
    xxh3_64(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_xxh3_for_ever() {
        // Values of the reference implementation (XXH3_64bits, xxHash 0.8).
        assert_eq!(xxh3_64(b""), 0x2d06_8005_38d3_94c2);
        let mut page = [0; 4096];
        let zeros = page_hash(&page);
        page[4095] = 1;
        assert_ne!(page_hash(&page), zeros);
    }
}
