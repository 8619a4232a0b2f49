//! Partition tables.

mod gpt;
mod mbr;

use std::io;

use crate::disk::Disk;
use crate::partition::{Partition, Scheme};

/// The unit of both tables where a disk has no larger blocks.
const SECTOR: u64 = 512;

/// Reads the table. A disk without one is one partition.
///
/// # Errors
/// The disk cannot be read.
pub(crate) fn read(disk: &Disk) -> io::Result<(Scheme, Vec<Partition>)> {
    for sector in [SECTOR, 8 * SECTOR] {
        if let Some(partitions) = gpt::read(disk, sector)? {
            return Ok((Scheme::Gpt, partitions));
        }
    }
    if let Some(partitions) = mbr::read(disk)? {
        return Ok((Scheme::Mbr, partitions));
    }
    Ok((Scheme::Whole, vec![Partition { number: 0, start: 0, len: disk.size(), efi: false }]))
}
