//! The statistics that a balloon driver sends (VIRTIO 1.2, section 5.5.6.3): pairs of a tag and a
//! value.

use plimsoll_protocol::control::GuestFacts;
use plimsoll_units::Bytes;

/// `struct virtio_balloon_stat`: a tag of two bytes, a value of eight, nothing between.
const PAIR: usize = 10;
/// Most bytes of a buffer that are read. There are 16 tags today; the rest could only be unknown
/// tags, or repetitions.
pub(super) const MAX_LENGTH: usize = 64 * PAIR;

/// Reads what the driver sent. Linux gives amounts of memory in bytes. Linux 6.1 sends the tags up
/// to 10, Linux 6.10 and newer those up to 15. Unknown tags are skipped, the last of a repeated tag
/// counts, an incomplete pair at the end does not.
pub(super) fn parse(buffer: &[u8]) -> GuestFacts {
    let mut facts = GuestFacts::default();
    for pair in buffer.chunks_exact(PAIR) {
        let (tag, value) = pair.split_at(2);
        let value = u64::from_le_bytes(value.try_into().expect("ten bytes less two"));
        match u16::from_le_bytes(tag.try_into().expect("two bytes")) {
            0 => facts.swap_in = Some(Bytes(value)),
            1 => facts.swap_out = Some(Bytes(value)),
            2 => facts.major_faults = value,
            4 => facts.free = Bytes(value),
            5 => facts.total = Bytes(value),
            6 => facts.available = Bytes(value),
            7 => facts.cache = Bytes(value),
            10 => facts.oom_kills = value,
            11 => facts.alloc_stalls = Some(value),
            13 => facts.direct_scans = Some(Bytes(value)),
            15 => facts.direct_reclaims = Some(Bytes(value)),
            // 3: minor faults; 8 and 9: huge pages of hugetlbfs; 12 and 14: what the guest's kswapd
            // does, which stalls nothing. Nothing uses them.
            _ => {}
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(pairs: &[(u16, u64)]) -> Vec<u8> {
        let bytes = |&(tag, value): &(u16, u64)| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat();
        pairs.iter().flat_map(bytes).collect()
    }

    #[test]
    fn known_tags_are_read_and_others_skipped() {
        let mut buffer = encode(&[
            (5, 256 << 20),
            (99, 1),
            (4, 100),
            (4, 4096),
            (6, 7),
            (7, 8),
            (2, 9),
            (10, 1),
            (0, 5),
            (1, 0),
        ]);
        buffer.extend([6, 0, 1]);
        let expected = GuestFacts {
            total: Bytes(256 << 20),
            free: Bytes(4096),
            available: Bytes(7),
            cache: Bytes(8),
            major_faults: 9,
            oom_kills: 1,
            swap_in: Some(Bytes(5)),
            swap_out: Some(Bytes::ZERO),
            ..GuestFacts::default()
        };
        assert_eq!(parse(&buffer), expected);
    }

    #[test]
    fn a_newer_guest_tells_of_its_own_reclaim() {
        let tags: Vec<_> = (0..16).map(|tag| (tag, 100 + u64::from(tag))).collect();
        let expected = GuestFacts {
            total: Bytes(105),
            free: Bytes(104),
            available: Bytes(106),
            cache: Bytes(107),
            major_faults: 102,
            oom_kills: 110,
            swap_in: Some(Bytes(100)),
            swap_out: Some(Bytes(101)),
            alloc_stalls: Some(111),
            direct_scans: Some(Bytes(113)),
            direct_reclaims: Some(Bytes(115)),
            ..GuestFacts::default()
        };
        assert_eq!(parse(&encode(&tags)), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(buffer in prop::collection::vec(any::<u8>(), 0..MAX_LENGTH)) {
            parse(&buffer);
        }
    }
}
