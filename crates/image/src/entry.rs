//! Entries of the mapping: where a cluster of the guest's disk is in the file.

use std::io;

use crate::error::damaged;

/// The file's cluster has no other reference: it may be written.
pub(crate) const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zeros, whatever is in the file (version 3).
pub(crate) const ZERO: u64 = 1;
/// Bits of an offset in the file, in entries of both levels and of the refcount table.
pub(crate) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Unit of the length of what is compressed.
const COMPRESSED_UNIT: u64 = 512;

/// Where a cluster of the guest's disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// In the backing file, or nowhere: then it reads as zeros.
    Unallocated,
    /// Nowhere: it reads as zeros. It may have a cluster of the file all the same.
    Zero(Option<Place>),
    /// In the file.
    Data(Place),
    /// In the file, compressed: `length` bytes from `at`, or less. The entry names it.
    Compressed { at: u64, length: u64 },
}

/// A cluster of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at: u64,
    /// It has no other reference.
    pub(crate) owned: bool,
}

impl Place {
    /// The entry of a cluster that is here, and that nothing else refers to.
    pub(crate) fn entry(self) -> u64 {
        self.at | COPIED
    }
}

impl Mapping {
    /// What `entry` of an image of `version` says.
    ///
    /// # Errors
    /// It says nothing that makes sense.
    pub(crate) fn of(entry: u64, version: u32, cluster_bits: u32) -> io::Result<Self> {
        if entry & COMPRESSED != 0 {
            let length_bits = cluster_bits - 8;
            let at_bits = 62 - length_bits;
            let at = entry & ((1 << at_bits) - 1) & (OFFSET | (COMPRESSED_UNIT - 1));
            let units = ((entry >> at_bits) & ((1 << length_bits) - 1)) + 1;
            return Ok(Self::Compressed { at, length: units * COMPRESSED_UNIT - at % COMPRESSED_UNIT });
        }
        let at = entry & OFFSET;
        if !at.is_multiple_of(1 << cluster_bits) {
            return Err(damaged(format!("the entry {entry:#x} points into a cluster")));
        }
        let place = (at != 0).then_some(Place { at, owned: entry & COPIED != 0 });
        if version >= 3 && entry & ZERO != 0 {
            return Ok(Self::Zero(place));
        }
        Ok(place.map_or(Self::Unallocated, Self::Data))
    }

    /// The clusters of the file that it refers to, by number.
    pub(crate) fn clusters(self, cluster_bits: u32) -> std::ops::RangeInclusive<u64> {
        match self {
            Self::Unallocated | Self::Zero(None) => std::ops::RangeInclusive::new(1, 0),
            Self::Zero(Some(Place { at, .. })) | Self::Data(Place { at, .. }) => {
                at >> cluster_bits..=at >> cluster_bits
            }
            Self::Compressed { at, length } => at >> cluster_bits..=(at + length - 1) >> cluster_bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_say_what_the_format_says() {
        let of = |entry| Mapping::of(entry, 3, 16).unwrap();
        assert_eq!(of(0), Mapping::Unallocated);
        assert_eq!(of(1), Mapping::Zero(None));
        assert_eq!(of(COPIED | 0x50000), Mapping::Data(Place { at: 0x50000, owned: true }));
        assert_eq!(of(0x50001), Mapping::Zero(Some(Place { at: 0x50000, owned: false })));
        assert_eq!(Mapping::of(0x50001, 2, 16).unwrap(), Mapping::Data(Place { at: 0x50000, owned: false }));
        assert!(Mapping::of(0x50200, 3, 16).is_err());
        // Clusters of 64 KiB: 54 bits of offset, 8 of units.
        let compressed = of(COMPRESSED | (3 << 54) | 0x1_2345);
        assert_eq!(compressed, Mapping::Compressed { at: 0x1_2345, length: 4 * 512 - 0x145 });
        assert_eq!(compressed.clusters(16), 1..=1);
        assert_eq!(of(COMPRESSED | (3 << 54) | 0x1_ff00).clusters(16), 1..=2);
        assert!(of(0).clusters(16).is_empty());
    }
}
