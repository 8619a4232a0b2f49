use std::hash::{BuildHasher, RandomState};

/// A page's hash as the index uses it.
///
/// Members choose what they look up. If they knew where a hash goes, they could send all of theirs
/// to one place, and make every look-up there slow for all members. So hashes are mixed with a
/// secret first. Distinct hashes have distinct keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) u64);

/// The highest bits of a key: all that is needed to find the part of the index where an entry is.
/// This is what the bookkeeping of pages and frames keeps of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix(pub(crate) u32);

impl Prefix {
    /// Bits of a prefix. Enough for the most pages that a domain may have; and with the bit that
    /// says "hint" they fit a word.
    pub(crate) const BITS: u32 = 30;
}

impl Key {
    pub(crate) fn prefix(self) -> Prefix {
        Prefix(u32::try_from(self.0 >> (64 - Prefix::BITS)).expect("30 bits"))
    }
}

/// The secret that hashes are mixed with. It differs for each domain and each start of the daemon.
#[derive(Debug)]
pub(crate) struct Secret([u64; 3]);

impl Secret {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| RandomState::new().hash_one(0)))
    }

    /// The same each time: no two of the hashes that tests use have one tag.
    #[cfg(test)]
    pub(crate) fn fixed() -> Self {
        Self([0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0])
    }

    /// Two rounds of multiplying by odd numbers and folding high bits into low ones. Each step can
    /// be undone, so no two hashes meet. The highest bits depend on all others.
    pub(crate) fn key(&self, hash: u64) -> Key {
        let [first, second, third] = self.0;
        let once = (hash ^ first).wrapping_mul(second | 1);
        let twice = (once ^ (once >> 32)).wrapping_mul(third | 1);
        Key(twice ^ (twice >> 32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_can_send_hashes_to_one_place() {
        // Whatever bits a member varies, the prefixes are spread: no 64th part of the index gets
        // twice its part.
        for shift in [0, 8, 16, 32, 48] {
            let secret = Secret::new();
            let mut parts = [0; 64];
            (0..1_u64 << 16).for_each(|n| parts[(secret.key(n << shift).prefix().0 >> 24) as usize] += 1);
            assert!(parts.iter().all(|part| *part < 2048), "{shift}: {parts:?}");
        }
        assert_ne!(Secret::new().key(1), Secret::new().key(1));
    }

    #[test]
    fn distinct_hashes_have_distinct_keys() {
        let secret = Secret::new();
        let keys: std::collections::HashSet<u64> = (0..100_000).map(|n| secret.key(n << 40 | n).0).collect();
        assert_eq!(keys.len(), 100_000);
    }
}
