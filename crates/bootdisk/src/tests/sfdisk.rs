//! Tables as `sfdisk` of util-linux 2.38 has written them.

use std::rc::Rc;

use super::image::Image;
use crate::disk::Disk;
use crate::partition::{Partition, Scheme};
use crate::table::read;

/// The header of a disk of 4 MiB.
const HEADER: &str = "4546492050415254000001005c000000777dde25000000000100000000000000ff1f000000000000220000000000\
                      0000de1f0000000000005c6a5d6e5d0d0a4f8a3c6a1d3c5b7e1002000000000000008000000080000000cf273489";
/// Its entries: a Linux file system, and an EFI system partition.
const ENTRIES: [&str; 2] = [
    "af3dc60f838472478e793d69d8477de4d4c3b2a10100024080030000000000012200000000000000210800000000000000000000",
    "28732ac11ff8d211ba4b00a0c93ec93bd4c3b2a10100024080030000000000022208000000000000210c00000000000000000000\
     00000000450053005000",
];

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

fn table(disk: Vec<u8>) -> (Scheme, Vec<Partition>) {
    let length = disk.len() as u64;
    let disk = Rc::new(Disk::new(Box::new(Image(disk)), length, 1 << 20));
    read(&disk).unwrap()
}

fn partition(number: u32, start: u64, count: u64, efi: bool) -> Partition {
    Partition { number, start: start * 512, len: count * 512, efi }
}

fn gpt() -> Vec<u8> {
    let mut disk = vec![0; 4 << 20];
    disk[512..604].copy_from_slice(&bytes(HEADER));
    for (index, entry) in ENTRIES.iter().enumerate() {
        let entry = bytes(entry);
        disk[1024 + index * 128..][..entry.len()].copy_from_slice(&entry);
    }
    disk
}

#[test]
fn a_gpt_is_read() {
    let wanted = vec![partition(1, 34, 2048, false), partition(2, 2082, 1024, true)];
    assert_eq!(table(gpt()), (Scheme::Gpt, wanted));
}

#[test]
fn a_gpt_with_one_wrong_bit_is_none() {
    for at in [512, 530, 600, 1030, 1024 + 128 * 127] {
        let mut disk = gpt();
        disk[at] ^= 4;
        assert_eq!(table(disk).0, Scheme::Whole, "{at}");
    }
}

#[test]
fn a_master_boot_record_and_its_logical_partitions_are_read() {
    let entry = |kind: u8, first: u32, count: u32| {
        [&[0, 32, 33, 0, kind, 97, 33, 0], &first.to_le_bytes()[..], &count.to_le_bytes()].concat()
    };
    let mut disk = vec![0; 64 << 20];
    let mut record = |at: usize, entries: &[Vec<u8>]| {
        disk[at * 512 + 446..][..entries.len() * 16].copy_from_slice(&entries.concat());
        disk[at * 512 + 510..][..2].copy_from_slice(&[0x55, 0xaa]);
    };
    record(0, &[entry(0x83, 2048, 4096), entry(5, 6144, 100_000), entry(0xef, 106_496, 4096)]);
    record(6144, &[entry(0x83, 2048, 4096), entry(5, 6144, 6144)]);
    record(12_288, &[entry(0x83, 2048, 4096), entry(5, 0, 6144)]);
    let wanted = vec![
        partition(1, 2048, 4096, false),
        partition(3, 106_496, 4096, true),
        partition(5, 8192, 4096, false),
        partition(6, 14_336, 4096, false),
    ];
    assert_eq!(table(disk.clone()), (Scheme::Mbr, wanted));
    // A chain that leads back into itself ends.
    disk[12_288 * 512 + 446 + 16..][..16].copy_from_slice(&entry(5, 6144, 6144));
    assert_eq!(table(disk).1.len(), 62);
}
