//! The account of a connection's bytes (VIRTIO 1.2, section 5.10.6.3).
//!
//! Each side tells the size of its buffer, and how many bytes have left that since the connection
//! began. The other side never has more bytes under way than the buffer takes. All counts are
//! modulo 2^32.

use plimsoll_protocol::definition::CONNECTION_BUFFER;

/// Most that a guest's buffer counts for. Comparisons of counts are clear while fewer than 2^31
/// bytes are under way; no guest has a buffer as large.
const MOST_UNDER_WAY: u32 = 1 << 30;

/// The guest broke a rule of the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overdrawn;

/// The account, of which the guest's part is claims.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Credit {
    /// Bytes that have come from the guest.
    received: u32,
    /// Those of them that have been passed on to the host's side.
    passed: u32,
    /// `passed`, as the guest was told last.
    told: u32,
    /// Bytes that were sent to the guest.
    sent: u32,
    /// Those of them that have left the guest's buffer, as the guest says.
    taken: u32,
    /// The size of the guest's buffer, as the guest says.
    buffer: u32,
}

impl Credit {
    /// Takes note of the guest's credit, which each of its packets has.
    ///
    /// A count that goes back is not a lie: threads of a guest may send packets in another order
    /// than that in which they wrote them.
    ///
    /// # Errors
    /// The guest has taken more than it was sent.
    pub(super) fn observe(&mut self, buffer: u32, taken: u32) -> Result<(), Overdrawn> {
        self.buffer = buffer.min(MOST_UNDER_WAY);
        let further = taken.wrapping_sub(self.taken);
        if further <= self.under_way() {
            self.taken = taken;
        } else if further < 1 << 31 {
            return Err(Overdrawn);
        }
        Ok(())
    }

    /// Takes note of `bytes` that came from the guest.
    ///
    /// # Errors
    /// The guest was told of no room for as many.
    pub(super) fn receive(&mut self, bytes: u32) -> Result<(), Overdrawn> {
        let unacknowledged = self.received.wrapping_sub(self.told);
        if bytes > CONNECTION_BUFFER - unacknowledged.min(CONNECTION_BUFFER) {
            return Err(Overdrawn);
        }
        self.received = self.received.wrapping_add(bytes);
        Ok(())
    }

    /// Takes note of `bytes` from the guest that have been passed on.
    pub(super) fn pass(&mut self, bytes: u32) {
        self.passed = self.passed.wrapping_add(bytes);
    }

    /// Takes note that all bytes from the guest have left the buffer, since nobody takes them. A
    /// program of the guest that waits for room learns of that end when it writes.
    pub(super) fn pass_all(&mut self) {
        self.passed = self.received;
    }

    /// Whether the guest should be told that there is room again: for half of the buffer. A guest
    /// that waits for room has all of it under way, so it is always told in the end.
    pub(super) fn owes_update(&self) -> bool {
        self.passed.wrapping_sub(self.told) >= CONNECTION_BUFFER / 2
    }

    /// The credit that goes with the next packet to the guest: the buffer's size, and the bytes
    /// that have left it.
    pub(super) fn tell(&mut self) -> (u32, u32) {
        self.told = self.passed;
        (CONNECTION_BUFFER, self.passed)
    }

    /// How many bytes the guest has room for.
    pub(super) fn room(&self) -> u32 {
        self.buffer.saturating_sub(self.under_way())
    }

    /// Takes note of `bytes` that are sent to the guest, at most [`Credit::room`].
    pub(super) fn send(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }

    fn under_way(&self) -> u32 {
        self.sent.wrapping_sub(self.taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_guest_may_send_what_it_was_told_of_and_not_a_byte_more() {
        let mut credit = Credit::default();
        assert_eq!(credit.receive(CONNECTION_BUFFER + 1), Err(Overdrawn));
        credit.receive(CONNECTION_BUFFER).unwrap();
        assert_eq!(credit.receive(1), Err(Overdrawn));
        credit.pass(CONNECTION_BUFFER / 2 - 1);
        assert!(!credit.owes_update());
        assert_eq!(credit.receive(1), Err(Overdrawn), "there is room, and it was not told");
        credit.pass(1);
        assert!(credit.owes_update());
        assert_eq!(credit.tell(), (CONNECTION_BUFFER, CONNECTION_BUFFER / 2));
        credit.receive(CONNECTION_BUFFER / 2).unwrap();
        assert_eq!(credit.receive(1), Err(Overdrawn));
    }

    #[test]
    fn what_a_guest_cannot_have_taken_is_a_lie_and_what_is_old_is_not() {
        let mut credit = Credit::default();
        credit.observe(1000, 0).unwrap();
        assert_eq!(credit.room(), 1000);
        credit.send(600);
        assert_eq!(credit.room(), 400);
        assert_eq!(credit.observe(1000, 601), Err(Overdrawn));
        credit.observe(1000, 500).unwrap();
        credit.observe(1000, 200).unwrap();
        assert_eq!(credit.room(), 900, "the later count holds");
        credit.observe(50, 500).unwrap();
        assert_eq!(credit.room(), 0, "a buffer may become smaller than what is under way");
    }

    proptest! {
        #[test]
        fn counts_go_around(steps in prop::collection::vec((1u32..CONNECTION_BUFFER, any::<u32>()), 1..200)) {
            let start = u32::MAX - 1000;
            let mut credit =
                Credit { received: start, passed: start, told: start, sent: start, taken: start, buffer: 0 };
            for (bytes, buffer) in steps {
                credit.receive(bytes).unwrap();
                credit.pass(bytes);
                prop_assert!(credit.passed.wrapping_sub(credit.told) <= CONNECTION_BUFFER);
                credit.tell();
                credit.observe(buffer, credit.taken).unwrap();
                prop_assert!(credit.room() <= MOST_UNDER_WAY);
                let sent = credit.room().min(bytes);
                credit.send(sent);
                credit.observe(buffer, credit.taken.wrapping_add(sent)).unwrap();
            }
        }

        #[test]
        fn no_claim_makes_room_beyond_the_bound(claims in prop::collection::vec((any::<u32>(), any::<u32>()), 1..100)) {
            let mut credit = Credit::default();
            for (buffer, taken) in claims {
                credit.observe(buffer, taken).ok();
                prop_assert!(credit.room() <= MOST_UNDER_WAY);
                credit.send(credit.room().min(1 << 16));
                prop_assert!(credit.under_way() <= MOST_UNDER_WAY);
            }
        }
    }
}
