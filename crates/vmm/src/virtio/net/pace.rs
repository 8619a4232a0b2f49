use std::time::Instant;

use plimsoll_protocol::control::RateLimit;

use super::super::rate::Rate;
use super::HEADER;

/// Where a virtio header has the kind of segmentation, and the length of a segment.
const GSO_TYPE: usize = 1;
const GSO_SIZE: std::ops::Range<usize> = 4..6;
/// Shortest segment that what comes in is counted in. Who sent it has chosen the length: without
/// this, a neighbour could use up the rate of seconds with one packet of segments of a byte. TCP
/// that knows nothing of its path sends 536 bytes.
const LEAST_SEGMENT: u64 = 512;

/// The rate of one direction.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// `None`: there is no limit, and no clock is read.
    rate: Option<Rate>,
    due: Option<Instant>,
    /// Segments that are shorter count as if they were this long.
    least_segment: u64,
}

impl Pace {
    /// That of what others send to the guest.
    pub(super) fn incoming() -> Self {
        Self { least_segment: LEAST_SEGMENT, ..Self::default() }
    }

    /// Whether a packet may pass now. If not, [`Pace::due`] says when.
    pub(super) fn may_pass(&mut self) -> bool {
        self.due = self.rate.as_ref().and_then(|rate| rate.wait(Instant::now()));
        self.due.is_none()
    }

    /// `packet` passes, with its virtio header. One that is to be cut into segments counts as many.
    pub(super) fn passes(&mut self, packet: &[u8]) {
        if let Some(rate) = &mut self.rate {
            let length = packet.len().saturating_sub(HEADER) as u64;
            rate.begin_all(segments(packet, length, self.least_segment), length, Instant::now());
        }
    }

    /// When the next packet may pass, if the last look at it found that it has to wait.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Holds to `limit` from now on. The next look says when the next packet may pass.
    pub(super) fn change(&mut self, limit: RateLimit) {
        self.rate = Rate::changed(self.rate.take(), limit, Instant::now());
        self.due = None;
    }

    /// Waits for nothing any more.
    pub(super) fn rest(&mut self) {
        self.due = None;
    }
}

/// How many packets `packet` is on the wire: one, or as many segments as its virtio header asks
/// for, of `least` bytes or more. Headers are counted as data, which makes one more of a few.
fn segments(packet: &[u8], length: u64, least: u64) -> u64 {
    let kind = packet.get(GSO_TYPE).copied().unwrap_or_default();
    let size = packet.get(GSO_SIZE).and_then(|size| size.first_chunk());
    let size = size.map_or(0, |size| u64::from(u16::from_le_bytes(*size)));
    if kind == 0 || size == 0 { 1 } else { length.div_ceil(size.max(least)).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of `length` bytes behind its header.
    fn packet(kind: u8, size: u16, length: usize) -> Vec<u8> {
        let mut packet = vec![0; HEADER + length];
        packet[GSO_TYPE] = kind;
        packet[GSO_SIZE].copy_from_slice(&size.to_le_bytes());
        packet
    }

    #[test]
    fn a_packet_counts_as_the_segments_that_it_is_cut_into() {
        for (packet, expected) in [
            (packet(0, 0, 1514), 1),
            (packet(0, 1448, 60_000), 1),
            (packet(1, 0, 60_000), 1),
            (packet(1, 1448, 60_000), 42),
            (packet(4, 1448, 1448), 1),
            (packet(1, 1448, 0), 1),
            (vec![1; 3], 1),
        ] {
            let length = packet.len().saturating_sub(HEADER) as u64;
            assert_eq!(segments(&packet, length, 0), expected, "{:?}", &packet[..packet.len().min(HEADER)]);
        }
    }

    #[test]
    fn segments_are_paid_for() {
        let mut pace = Pace::default();
        let burst = "10s".parse().unwrap();
        pace.change(RateLimit { operations: Some(1), burst, ..RateLimit::default() });
        (0..9).for_each(|_| pace.passes(&packet(0, 0, 60)));
        assert!(pace.may_pass());
        pace.passes(&packet(1, 1000, 20_000));
        assert!(!pace.may_pass());
        let wait = pace.due().unwrap().saturating_duration_since(Instant::now());
        assert!(wait.as_secs() > 10, "19 packets have to be made up for: {wait:?}");
    }

    #[test]
    fn a_neighbour_chooses_no_segments_that_use_up_the_rate() {
        let limit = RateLimit { operations: Some(1000), ..RateLimit::default() };
        let wait = |mut pace: Pace| {
            pace.change(limit);
            pace.passes(&packet(1, 1, 65_000));
            assert!(!pace.may_pass());
            pace.due().unwrap().saturating_duration_since(Instant::now())
        };
        // It is 127 packets at most. The guest may use up its own rate.
        assert!(wait(Pace::incoming()).as_millis() < 200);
        assert!(wait(Pace::default()).as_secs() > 50);
    }
}
