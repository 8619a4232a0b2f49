//! The guest's requests to a disk, read from chains and checked against the disk's bounds.

use plimsoll_pmap::{GuestRam, PpnRange};

use super::super::back::Broken;
use super::super::ring::{Chain, Spans};
use super::geometry::Geometry;
use super::{MAX_DISCARD_SECTORS, MAX_REQUEST, MAX_ZERO_SECTORS, SECTOR};
use crate::whole_pages::whole_pages;

/// Length of the header that every request begins with.
const HEADER: u32 = 16;
/// Length of the segment of a discard or write-zeroes request.
const SEGMENT: usize = 16;
/// A write-zeroes segment that may be unmapped.
const UNMAP: u32 = 1;

/// Request types (VIRTIO 1.2, section 5.2.6).
mod kind {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
}

/// How a request ended, as its status byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// What the request asks for. Offsets and lengths are bytes, within the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Read from the disk to these buffers.
    Read {
        offset: u64,
        to: Spans,
    },
    /// Write these buffers to the disk.
    Write {
        offset: u64,
        from: Spans,
    },
    Flush,
    /// Write the disk's name to these buffers.
    GetId {
        to: Spans,
    },
    Discard {
        offset: u64,
        length: u64,
    },
    WriteZeroes {
        offset: u64,
        length: u64,
        unmap: bool,
    },
    /// Answer only.
    Answer(Status),
}

impl Action {
    /// Bytes that it moves between disk and guest.
    pub(super) fn moves(&self) -> u64 {
        match self {
            Self::Read { to: buffers, .. } | Self::Write { from: buffers, .. } => buffers.len() as u64,
            Self::Flush | Self::GetId { .. } | Self::Discard { .. } | Self::Answer(_) => 0,
            // Where the file system cannot zero a range, they are written.
            Self::WriteZeroes { length, .. } => *length,
        }
    }

    /// The pages that it is about to fill wholly.
    pub(super) fn filled_pages(&self) -> Vec<PpnRange> {
        let Self::Read { to, .. } = self else { return Vec::new() };
        to.iter().filter_map(|span| whole_pages(span.address.0, span.len.into())).collect()
    }
}

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) action: Action,
    /// Where the status byte goes.
    pub(super) status: Spans,
}

/// What a disk allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) sectors: u64,
    pub(super) read_only: bool,
    pub(super) geometry: Geometry,
}

impl Request {
    /// Reads a request. A request that is not allowed becomes an answer with an error status.
    ///
    /// # Errors
    /// No room for a header or for the status byte: there is nowhere to answer to.
    pub(super) fn read(memory: &GuestRam, chain: &Chain, bounds: Bounds) -> Result<Self, Broken> {
        let mut header = [0; HEADER as usize];
        let (front, data_out) = chain.readable.split(HEADER).ok_or(Broken::Layout)?;
        front.read(&**memory, &mut header)?;
        let data_in_length = chain.writable.len().checked_sub(1).ok_or(Broken::Layout)?;
        let (data_in, status) = chain.writable.split(data_in_length).ok_or(Broken::Layout)?;
        let (kind, sector) = (u32_at(&header, 0), u64_at(&header, 8));
        let action = match kind {
            kind::IN => match bounds.data(sector, &data_in) {
                Some(offset) => Action::Read { offset, to: data_in },
                None => Action::Answer(Status::IoError),
            },
            kind::OUT => match bounds.data(sector, &data_out).filter(|_| !bounds.read_only) {
                Some(offset) => Action::Write { offset, from: data_out },
                None => Action::Answer(Status::IoError),
            },
            kind::FLUSH => Action::Flush,
            kind::GET_ID => Action::GetId { to: data_in },
            kind::DISCARD | kind::WRITE_ZEROES => {
                let mut segment = [0; SEGMENT];
                data_out.read(&**memory, &mut segment)?;
                // One segment is all that the configuration allows.
                if data_out.len() as usize == SEGMENT {
                    bounds.clearing(kind, &segment)
                } else {
                    Action::Answer(Status::IoError)
                }
            }
            _ => Action::Answer(Status::Unsupported),
        };
        Ok(Self { action, status })
    }
}

impl Bounds {
    fn data(self, sector: u64, buffers: &Spans) -> Option<u64> {
        let length = Some(buffers.len()).filter(|length| *length <= MAX_REQUEST)?;
        self.bytes(sector, length.into())
    }

    /// The byte at which `sector` begins, where `length` bytes from there are whole sectors of the
    /// disk.
    fn bytes(self, sector: u64, length: u64) -> Option<u64> {
        let end = sector.checked_add(length / SECTOR)?;
        (length.is_multiple_of(SECTOR) && end <= self.sectors).then_some(())?;
        sector.checked_mul(SECTOR)
    }

    fn clearing(self, kind: u32, segment: &[u8; SEGMENT]) -> Action {
        let (sector, sectors, flags) = (u64_at(segment, 0), u32_at(segment, 8), u32_at(segment, 12));
        let (most, known_flags) =
            if kind == kind::DISCARD { (MAX_DISCARD_SECTORS, 0) } else { (MAX_ZERO_SECTORS, UNMAP) };
        if flags & !known_flags != 0 {
            return Action::Answer(Status::Unsupported);
        }
        let length = u64::from(sectors) * SECTOR;
        match self.bytes(sector, length) {
            _ if self.read_only || sectors > most => Action::Answer(Status::IoError),
            None => Action::Answer(Status::IoError),
            // The kernel refuses empty ranges.
            Some(_) if length == 0 => Action::Answer(Status::Ok),
            Some(offset) if kind == kind::DISCARD => Action::Discard { offset, length },
            Some(offset) => Action::WriteZeroes { offset, length, unmap: flags & UNMAP != 0 },
        }
    }
}

fn u32_at(bytes: &[u8; 16], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8; 16], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
