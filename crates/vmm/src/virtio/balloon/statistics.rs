//! The statistics that a balloon driver sends (VIRTIO 1.2, section 5.5.6.3): pairs of a tag and a value.

use plimsoll_protocol::control::GuestFacts;
use plimsoll_units::Bytes;

/// `struct virtio_balloon_stat`: a tag of two bytes, a value of eight, nothing between.
const PAIR: usize = 10;
/// Bytes of a buffer that are looked at. There are 16 tags today; the rest would be tags that nobody knows, or
/// repetitions.
pub(super) const MAX_LENGTH: usize = 64 * PAIR;

/// Reads what the driver sent. Unknown tags are skipped, the last of a repeated tag counts, an incomplete pair at the
/// end does not.
pub(super) fn parse(buffer: &[u8]) -> GuestFacts {
    let mut facts = GuestFacts::default();
    for pair in buffer.chunks_exact(PAIR) {
        let (tag, value) = pair.split_at(2);
        let value = u64::from_le_bytes(value.try_into().expect("ten bytes less two"));
        match u16::from_le_bytes(tag.try_into().expect("two bytes")) {
            2 => facts.major_faults = value,
            4 => facts.free = Bytes(value),
            5 => facts.total = Bytes(value),
            6 => facts.available = Bytes(value),
            7 => facts.cache = Bytes(value),
            10 => facts.oom_kills = value,
            _ => {}
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_tags_are_read_and_others_skipped() {
        let pairs =
            [(5u16, 256u64 << 20), (99, 1), (4, 100), (4, 4096), (6, 7), (7, 8), (2, 9), (10, 1), (0, 5)];
        let mut buffer: Vec<u8> = vec![];
        for (tag, value) in pairs {
            buffer.extend(tag.to_le_bytes());
            buffer.extend(value.to_le_bytes());
        }
        buffer.extend([6, 0, 1]);
        let expected = GuestFacts {
            total: Bytes(256 << 20),
            free: Bytes(4096),
            available: Bytes(7),
            cache: Bytes(8),
            major_faults: 9,
            oom_kills: 1,
        };
        assert_eq!(parse(&buffer), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(buffer in prop::collection::vec(any::<u8>(), 0..MAX_LENGTH)) {
            parse(&buffer);
        }
    }
}
