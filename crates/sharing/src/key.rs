//! What the index uses of a digest, and the secret that it is mixed with.
//!
//! Not taken: the key of digests in the run directory, so that it outlives the daemon: digests do
//! not. Hints are lost with the daemon, frames are digested anew when they are taken over, and
//! members look at all of their pages again. So each start makes a new key, and none is on a disk.

use std::hash::{BuildHasher, RandomState};
use std::io;

use plimsoll_units::{DigestKey, PageDigest};
use rustix::rand::{GetRandomFlags, getrandom};

/// A page's digest as the index uses it.
///
/// Members choose what they look up. If they knew where a digest goes, they could send all of
/// theirs to one place, and make every look-up there slow for all members; or have digests of
/// others taken for theirs. So digests are mixed with a secret first. Two that differ have one key
/// with a probability of 2^-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) u64);

/// The highest bits of a key: all that is needed to find the part of the index where an entry is.
/// This is what the bookkeeping of pages and frames keeps of a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix(pub(crate) u32);

impl Prefix {
    /// Bits of a prefix. Enough for the most pages that a domain may have; and with the bit that
    /// says "hint" they fit a word.
    pub(crate) const BITS: u32 = 30;
}

/// A new key for a domain's digests.
///
/// # Errors
/// The kernel's; it gives this many bytes at once.
pub(crate) fn digest_key() -> io::Result<DigestKey> {
    let mut bytes = [0; DigestKey::LEN];
    let given = getrandom(&mut bytes, GetRandomFlags::empty())?;
    if given < bytes.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(DigestKey::new(bytes))
}

impl Key {
    pub(crate) fn prefix(self) -> Prefix {
        Prefix(u32::try_from(self.0 >> (64 - Prefix::BITS)).expect("30 bits"))
    }
}

/// The secret that digests are mixed with. It differs for each domain and each start of the daemon,
/// and no member knows it.
#[derive(Debug)]
pub(crate) struct Secret {
    /// What each half of a digest is multiplied by.
    halves: [u128; 2],
    rounds: [u64; 3],
}

impl Secret {
    pub(crate) fn new() -> Self {
        let word = || RandomState::new().hash_one(0);
        let wide = || u128::from(word()) << 64 | u128::from(word());
        Self { halves: [wide(), wide()], rounds: [word(), word(), word()] }
    }

    /// The same each time: no two of the digests that tests use have one tag.
    #[cfg(test)]
    pub(crate) fn fixed() -> Self {
        Self {
            halves: [0x082e_fa98_ec4e_6c89_4528_21e6_38d0_1377, 0xbe54_66cf_34e9_0c6c_c0ac_29b7_c97c_50dd],
            rounds: [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0],
        }
    }

    /// The two halves are multiplied by random numbers of 128 bits and summed: of the upper 64 bits
    /// two digests have the same with a probability of 2^-64. Then two rounds of multiplying by odd
    /// numbers and folding high bits into low ones, which can be undone: what is seen of tags tells
    /// nothing simple of the numbers. The highest bits depend on all others.
    #[expect(clippy::cast_possible_truncation, reason = "halves are taken")]
    pub(crate) fn key(&self, digest: PageDigest) -> Key {
        let PageDigest(digest) = digest;
        let [low, high] = self.halves;
        let low = low.wrapping_mul(u128::from(digest as u64));
        let sum = low.wrapping_add(high.wrapping_mul(digest >> 64));
        let [first, second, third] = self.rounds;
        let once = ((sum >> 64) as u64 ^ first).wrapping_mul(second | 1);
        let twice = (once ^ (once >> 32)).wrapping_mul(third | 1);
        Key(twice ^ (twice >> 32))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn nobody_can_send_digests_to_one_place() {
        // Whatever bits a member varies, the prefixes are spread: no 64th part of the index gets
        // twice its part.
        let part = |secret: &Secret, n| (secret.key(PageDigest(n)).prefix().0 >> 24) as usize;
        for shift in [0, 8, 16, 32, 48, 56, 64, 80, 112] {
            let secret = Secret::new();
            let mut parts = [0; 64];
            (0..1 << 16).for_each(|n| parts[part(&secret, n << shift)] += 1);
            assert!(parts.iter().all(|part| *part < 2048), "{shift}: {parts:?}");
        }
        assert_ne!(Secret::new().key(PageDigest(1)), Secret::new().key(PageDigest(1)));
    }

    #[test]
    fn keys_of_distinct_digests_differ() {
        let secret = Secret::new();
        for spread in [|n: u128| n << 40 | n, |n| n << 64, |n| n << 108, |n| n << 64 | n] {
            let keys: HashSet<u64> = (0..100_000).map(|n| secret.key(PageDigest(spread(n))).0).collect();
            assert_eq!(keys.len(), 100_000);
        }
    }
}
