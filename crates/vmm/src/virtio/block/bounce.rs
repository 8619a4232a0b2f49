//! The bounce buffer: direct I/O for requests that are not aligned as the storage asks.
//!
//! Linux aligns what it asks for to the physical block that it is shown; firmware, old file systems
//! and other drivers may not, and VIRTIO allows them any sector and any memory. Their data goes
//! through an aligned buffer. A write of parts of blocks reads those blocks first; so such a
//! request runs alone, while no other is in flight.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use plimsoll_pmap::GuestRam;
use plimsoll_sys::direct::COARSEST;

use super::super::back::Broken;
use super::super::ring::Spans;
use super::direction::Direction;

/// Bytes of the buffer, and the most that are moved at a time: as long as the longest piece of a
/// request. A disk has one while such a request runs.
pub(super) const LENGTH: u32 = super::MAX_SEGMENT;

/// Moves `buffers` to or from `offset` of `file`, which has blocks of `block` bytes. Returns their
/// length. They are pinned, and the blocks that they lie in are at most [`LENGTH`] bytes.
///
/// # Errors
/// The kernel's, or the buffers are not in guest memory.
pub(super) fn carry_out(
    file: &File,
    block: u64,
    direction: Direction,
    offset: u64,
    buffers: &Spans,
    ram: &GuestRam,
) -> io::Result<usize> {
    let length = usize::try_from(buffers.len()).map_err(io::Error::other)?;
    let before = usize::try_from(offset % block).map_err(io::Error::other)?;
    let start = offset - offset % block;
    let whole = (before + length).next_multiple_of(usize::try_from(block).map_err(io::Error::other)?);
    let mut memory = vec![0; whole + COARSEST as usize];
    let aligned = memory.as_ptr().align_offset(COARSEST as usize);
    let blocks = &mut memory[aligned..][..whole];
    match direction {
        Direction::Read => {
            file.read_exact_at(blocks, start)?;
            buffers.write(&**ram, &blocks[before..][..length]).map_err(outside)?;
        }
        Direction::Write => {
            if whole != length {
                file.read_exact_at(blocks, start)?;
            }
            buffers.read(&**ram, &mut blocks[before..][..length]).map_err(outside)?;
            file.write_all_at(blocks, start)?;
        }
    }
    Ok(length)
}

/// What was checked when the request was read.
fn outside(broken: Broken) -> io::Error {
    io::Error::other(broken.to_string())
}
