//! The master boot record, and the chain of extended ones that logical partitions lie in.

use std::io;

use super::{Partition, SECTOR};
use crate::disk::{Disk, u16_at, u32_at};
use crate::volume;

/// Bytes of a record.
const RECORD: usize = 512;
const TABLE: usize = 446;
const ENTRY: usize = 16;
/// Most logical partitions: Linux names no more, and a chain may lead back into itself.
const MAX_LOGICAL: u32 = 60;

const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
const PROTECTIVE: u8 = 0xee;
const EFI_SYSTEM: u8 = 0xef;

struct Entry {
    kind: u8,
    first: u64,
    count: u64,
}

/// The partitions; `None`: there is no table. The first sector of a FAT file system looks much like
/// one.
pub(super) fn read(disk: &Disk) -> io::Result<Option<Vec<Partition>>> {
    let Some(entries) = entries(disk, 0)? else { return Ok(None) };
    let mut partitions = Vec::new();
    let mut extended = None;
    for (number, entry) in (1..).zip(&entries) {
        match entry.kind {
            0 | PROTECTIVE => {}
            kind if EXTENDED.contains(&kind) => extended = extended.or(Some(entry.first)),
            kind => partitions.extend(partition(disk, number, entry.first, entry.count, kind)),
        }
    }
    if let Some(start) = extended {
        logical(disk, start, &mut partitions)?;
    }
    if partitions.is_empty() || volume::is_fat(disk)? { Ok(None) } else { Ok(Some(partitions)) }
}

/// Adds the logical partitions of the extended one at sector `start`, numbered from 5 on.
fn logical(disk: &Disk, start: u64, partitions: &mut Vec<Partition>) -> io::Result<()> {
    let mut at = start;
    for number in 5..5 + MAX_LOGICAL {
        if at.saturating_add(1).saturating_mul(SECTOR) > disk.size() {
            break;
        }
        let Some([own, next, ..]) = entries(disk, at)? else { break };
        if own.kind != 0 {
            partitions.extend(partition(disk, number, at + own.first, own.count, own.kind));
        }
        if !EXTENDED.contains(&next.kind) || next.first == 0 {
            break;
        }
        at = start + next.first;
    }
    Ok(())
}

fn partition(disk: &Disk, number: u32, first: u64, count: u64, kind: u8) -> Option<Partition> {
    Partition::of(disk, number, first, count, SECTOR, kind == EFI_SYSTEM)
}

/// The entries of the record in sector `at`; `None` if the sector is no such record.
fn entries(disk: &Disk, at: u64) -> io::Result<Option<[Entry; 4]>> {
    let mut sector = [0; RECORD];
    if disk.size() < SECTOR {
        return Ok(None);
    }
    disk.read(&mut sector, at * SECTOR)?;
    let entry = |index: usize| &sector[TABLE + index * ENTRY..][..ENTRY];
    // Each is active or not; anything else is a loader's code.
    let table = (0..4).all(|index| matches!(entry(index)[0], 0 | 0x80));
    if u16_at(&sector, 510) != 0xaa55 || !table {
        return Ok(None);
    }
    Ok(Some(std::array::from_fn(|index| {
        let entry = entry(index);
        Entry { kind: entry[4], first: u32_at(entry, 8).into(), count: u32_at(entry, 12).into() }
    })))
}
