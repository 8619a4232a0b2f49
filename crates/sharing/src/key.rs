use std::hash::{BuildHasher, RandomState};

/// A page's hash as the index uses it.
///
/// Members choose what they look up. If they knew where a hash goes they could send all of theirs to one place, and make every
/// look-up there slow for everybody. So hashes are stirred with a secret first. Distinct hashes have distinct keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) u64);

/// The highest bits of a key: all that is needed to find the part of the index where an entry is. This is what the
/// bookkeeping of pages and frames keeps of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix(pub(crate) u32);

impl Prefix {
    /// Bits of a prefix. Enough for the most pages that a domain may have; and with the bit that says "hint" they fit a word.
    pub(crate) const BITS: u32 = 30;
}

impl Key {
    pub(crate) fn prefix(self) -> Prefix {
        Prefix(u32::try_from(self.0 >> (64 - Prefix::BITS)).expect("30 bits"))
    }
}

/// What hashes are stirred with; another one for each domain and each life of the daemon.
#[derive(Debug)]
pub(crate) struct Secret([u64; 3]);

impl Secret {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| RandomState::new().hash_one(0)))
    }

    /// Two rounds of multiplying by odd numbers and folding high bits into low ones. Each step can be undone, so no two hashes
    /// meet. The highest bits depend on all others.
    pub(crate) fn key(&self, hash: u64) -> Key {
        let [first, second, third] = self.0;
        let once = (hash ^ first).wrapping_mul(second | 1);
        let twice = (once ^ (once >> 32)).wrapping_mul(third | 1);
        Key(twice ^ (twice >> 32))
    }
}
