//! The GUID partition table (UEFI specification, section 5.3).

use std::io;

use super::Partition;
use crate::disk::{Disk, u32_at, u64_at};

const SIGNATURE: &[u8] = b"EFI PART";
/// What a header has at least, and all of it that is used.
const HEADER: usize = 92;
/// Most bytes of all entries: 128 entries of 128 bytes are usual.
const MAX_ENTRIES: u64 = 256 << 10;
/// C12A7328-F81F-11D2-BA4B-00A0C93EC93B as it is stored.
const EFI_SYSTEM: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];

/// The partitions of a table in sectors of `sector` bytes; `None`: there is no valid one, neither
/// at the disk's start nor at its end.
pub(super) fn read(disk: &Disk, sector: u64) -> io::Result<Option<Vec<Partition>>> {
    let last = (disk.size() / sector).saturating_sub(1);
    if last < 2 {
        return Ok(None);
    }
    match table(disk, sector, 1)? {
        Some(partitions) => Ok(Some(partitions)),
        None => table(disk, sector, last),
    }
}

/// The table whose header is sector `at`.
fn table(disk: &Disk, sector: u64, at: u64) -> io::Result<Option<Vec<Partition>>> {
    let mut header = vec![0; usize::try_from(sector).map_err(io::Error::other)?];
    disk.read(&mut header, at * sector)?;
    let length = u32_at(&header, 12) as usize;
    if !header.starts_with(SIGNATURE) || !(HEADER..=header.len()).contains(&length) {
        return Ok(None);
    }
    let sum = u32_at(&header, 16);
    header[16..20].fill(0);
    if checksum(&header[..length]) != sum || u64_at(&header, 24) != at {
        return Ok(None);
    }
    let (count, size) = (u64::from(u32_at(&header, 80)), u64::from(u32_at(&header, 84)));
    let Some(start) = u64_at(&header, 72).checked_mul(sector) else { return Ok(None) };
    let total = count * size;
    let within = start.checked_add(total).is_some_and(|end| end <= disk.size());
    if size < 128 || !size.is_multiple_of(8) || total > MAX_ENTRIES || !within {
        return Ok(None);
    }
    let mut entries = vec![0; usize::try_from(total).map_err(io::Error::other)?];
    disk.read(&mut entries, start)?;
    if checksum(&entries) != u32_at(&header, 88) {
        return Ok(None);
    }
    let size = usize::try_from(size).map_err(io::Error::other)?;
    let partitions = (1..).zip(entries.chunks_exact(size)).filter_map(|(number, entry)| {
        let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
        let count = last.checked_sub(first)?.checked_add(1)?;
        let used = entry[..16] != [0; 16];
        let efi = entry[..16] == EFI_SYSTEM;
        used.then(|| Partition::of(disk, number, first, count, sector, efi)).flatten()
    });
    Ok(Some(partitions.collect()))
}

fn checksum(bytes: &[u8]) -> u32 {
    crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(bytes)
}
