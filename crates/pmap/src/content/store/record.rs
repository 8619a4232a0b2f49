//! The records of the log: one for each packed page.
//!
//! | byte | is |
//! |---|---|
//! | 0..4 | handle |
//! | 4..8 | owner |
//! | 8..12 | handle of the next older record, or [`NONE`] |
//! | 12..16 | handle of the next younger record, or [`NONE`] |
//! | 16..18 | length of the packed page |
//! | 18.. | the packed page |
//!
//! Little-endian; padded to whole units of 16 bytes.

use super::pack::MOST_PACKED;

/// Instead of a handle: there is no such record.
pub(super) const NONE: u32 = u32::MAX;

/// Bytes before the packed page.
pub(super) const HEADER: usize = 18;
/// Records begin at multiples of this. More wastes memory (half of it for each record); less, and
/// 31 bits do not reach 32 GiB.
pub(super) const UNIT: usize = 16;
/// Bytes of the largest record.
pub(super) const LARGEST: usize = size(MOST_PACKED);
/// Bytes of the smallest record that there can be.
pub(super) const SMALLEST: usize = size(1);

/// Bytes of a record with a packed page of `len` bytes.
pub(super) const fn size(len: usize) -> usize {
    (HEADER + len).next_multiple_of(UNIT)
}

/// What a record says beside the packed page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) handle: u32,
    pub(super) owner: u32,
    pub(super) older: u32,
    pub(super) younger: u32,
    pub(super) len: u16,
}

impl Header {
    /// Reads the header at the start of `record`.
    pub(super) fn read(record: &[u8]) -> Self {
        Self {
            handle: word(record, 0),
            owner: word(record, 4),
            older: word(record, 8),
            younger: word(record, 12),
            len: u16::from_le_bytes([record[16], record[17]]),
        }
    }

    /// Writes it to the start of `record`.
    pub(super) fn write(&self, record: &mut [u8]) {
        let words = [self.handle, self.owner, self.older, self.younger];
        for (place, value) in record.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        record[16..HEADER].copy_from_slice(&self.len.to_le_bytes());
    }

    /// Bytes of the whole record.
    pub(super) fn size(&self) -> usize {
        size(usize::from(self.len))
    }
}

/// The word at byte `at`.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
