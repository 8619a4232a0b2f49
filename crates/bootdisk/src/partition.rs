use crate::disk::Disk;

/// How a disk is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// A GUID partition table.
    Gpt,
    /// A master boot record.
    Mbr,
    /// Not at all.
    Whole,
}

/// A part of a disk, which lies within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// Its number, from 1 on; 0 is the whole disk.
    pub(crate) number: u32,
    /// In bytes.
    pub(crate) start: u64,
    /// In bytes.
    pub(crate) len: u64,
    /// It is marked as an EFI system partition.
    pub(crate) efi: bool,
}

impl Partition {
    /// Sectors `first` and `count` of `sector` bytes; `None`: they are not within `disk`.
    pub(crate) fn of(
        disk: &Disk,
        number: u32,
        first: u64,
        count: u64,
        sector: u64,
        efi: bool,
    ) -> Option<Self> {
        let (start, len) = (first.checked_mul(sector)?, count.checked_mul(sector)?);
        let within = len > 0 && start > 0 && start.checked_add(len)? <= disk.size();
        within.then_some(Self { number, start, len, efi })
    }
}
