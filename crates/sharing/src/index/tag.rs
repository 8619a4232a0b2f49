use crate::key::{Key, Prefix};

/// What an entry keeps of its key: the highest 40 bits.
///
/// Two digests with one tag are taken for the same, and comparing the pages shows that they are
/// not. Among 16 million entries that happens to one look-up in 65,000, and to one in 1000 among a
/// thousand million: cheaper than three more bytes for every entry, and than 15 for the rest of the
/// digest. Of two contents whose tags are the same only one is shared at a time. No page comes to
/// map other content, no member loses trust, and no member can choose that it happens to another's
/// content: what tags come of is secret (`key.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tag(u64);

impl Tag {
    const BITS: u32 = 40;

    pub(super) fn of(key: Key) -> Self {
        Self(key.0 >> (64 - Self::BITS))
    }

    pub(super) fn prefix(self) -> Prefix {
        Prefix(u32::try_from(self.0 >> (Self::BITS - Prefix::BITS)).expect("30 bits"))
    }

    /// The lower 32 bits and the upper 8.
    #[expect(clippy::cast_possible_truncation, reason = "that is what it does")]
    pub(super) fn parts(self) -> (u32, u8) {
        (self.0 as u32, (self.0 >> 32) as u8)
    }

    pub(super) fn from_parts(low: u32, high: u8) -> Self {
        Self(u64::from(high) << 32 | u64::from(low))
    }

    /// The least tag of this prefix, or of a longer one that is filled up with zeros.
    pub(super) fn least(prefix: u64) -> Self {
        Self(prefix << (Self::BITS - Prefix::BITS))
    }
}
