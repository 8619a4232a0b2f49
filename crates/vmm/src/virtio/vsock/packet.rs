//! The header of a vsock packet (VIRTIO 1.2, section 5.10.6). All fields are little-endian.
//!
//! | bytes | field | bytes | field |
//! |---|---|---|---|
//! | 0..8 | context identifier of the sender | 28..30 | type |
//! | 8..16 | that of the receiver | 30..32 | operation |
//! | 16..20 | port of the sender | 32..36 | flags |
//! | 20..24 | that of the receiver | 36..40 | size of the sender's buffer |
//! | 24..28 | length of the data | 40..44 | bytes that have left that buffer |
//!
//! The crate `virtio-vsock` is not used: it wants a packet in at most two buffers, each within one
//! region of memory, which no device may assume of its driver (section 2.7.4.1).

/// Length of a header.
pub(super) const HEADER: usize = 44;
/// The host's context identifier.
pub(super) const HOST_CID: u64 = 2;
/// The type of packets of streams, which are the only ones here.
pub(super) const STREAM: u16 = 1;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Connect to a port.
    Request,
    /// The connection is there.
    Response,
    /// There is no such connection, or not any more.
    Reset,
    /// The sender ends one direction or both: see [`end`].
    Shutdown,
    /// Data.
    Data,
    /// The sender's credit, as in every packet.
    CreditUpdate,
    /// The receiver is to tell its credit.
    CreditRequest,
}

impl Op {
    const ALL: [Self; 7] = [
        Self::Request,
        Self::Response,
        Self::Reset,
        Self::Shutdown,
        Self::Data,
        Self::CreditUpdate,
        Self::CreditRequest,
    ];

    /// Its number.
    pub(super) fn number(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Reset => 3,
            Self::Shutdown => 4,
            Self::Data => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
        }
    }

    /// The operation of this number, if there is one.
    pub(super) fn of(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.number() == number)
    }
}

/// Flags of [`Op::Shutdown`]: what its sender does no more.
pub(super) mod end {
    /// The sender receives no more.
    pub(crate) const RECEIVE: u32 = 1;
    /// The sender sends no more.
    pub(crate) const SEND: u32 = 2;
    pub(crate) const BOTH: u32 = RECEIVE | SEND;
}

/// A packet's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) from_cid: u64,
    pub(super) to_cid: u64,
    pub(super) from_port: u32,
    pub(super) to_port: u32,
    /// Length of the data behind it.
    pub(super) length: u32,
    pub(super) kind: u16,
    /// See [`Op::of`].
    pub(super) op: u16,
    pub(super) flags: u32,
    /// The size of the sender's buffer for this connection.
    pub(super) buffer: u32,
    /// Bytes that have left that buffer since the connection began, modulo 2^32.
    pub(super) taken: u32,
}

impl Header {
    /// Reads a header from its bytes.
    pub(super) fn read(bytes: &[u8; HEADER]) -> Self {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Self {
            from_cid: long(0),
            to_cid: long(8),
            from_port: word(16),
            to_port: word(20),
            length: word(24),
            kind: half(28),
            op: half(30),
            flags: word(32),
            buffer: word(36),
            taken: word(40),
        }
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..8].copy_from_slice(&self.from_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.to_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.from_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.to_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.op.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buffer.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.taken.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_laid_out_as_the_specification_has_it() {
        let bytes: [u8; HEADER] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let header = Header::read(&bytes);
        assert_eq!((header.from_cid, header.to_port), (0x0706_0504_0302_0100, 0x1716_1514));
        assert_eq!((header.length, header.kind, header.op), (0x1b1a_1918, 0x1d1c, 0x1f1e));
        assert_eq!((header.flags, header.buffer, header.taken), (0x2322_2120, 0x2726_2524, 0x2b2a_2928));
        assert_eq!(header.bytes(), bytes);
    }

    #[test]
    fn operations_are_known_by_their_numbers() {
        assert_eq!(Op::of(5), Some(Op::Data));
        assert!((1..=7).all(|number| Op::of(number).is_some_and(|op| op.number() == number)));
        assert_eq!((Op::of(0), Op::of(8), Op::of(u16::MAX)), (None, None, None));
    }
}
