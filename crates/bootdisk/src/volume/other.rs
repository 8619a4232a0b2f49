//! What a partition holds, by its first bytes.

use std::io;

use super::fat;
use crate::disk::{Window, u16_at};

/// What was recognized.
pub(super) enum Kind {
    /// Ext2, ext3 or ext4.
    Ext,
    Fat,
    /// For people.
    Other(&'static str),
}

/// Offset, bytes, and what they tell.
const SIGNS: &[(u64, &[u8], &str)] = &[
    (0, b"XFSB", "xfs (cannot be read: put /boot on a file system of ext4)"),
    (0x1_0040, b"_BHRfS_M", "btrfs (cannot be read: put /boot on a file system of ext4)"),
    (0x400, b"\x10\x20\xf5\xf2", "f2fs (cannot be read)"),
    (0x1018, b"\xc6\x85\x73\xf6", "bcachefs (cannot be read)"),
    (0, b"hsqs", "squashfs (cannot be read)"),
    (0x8001, b"CD001", "ISO 9660 (cannot be read)"),
    (3, b"NTFS    ", "NTFS (cannot be read)"),
    (3, b"EXFAT   ", "exFAT (cannot be read)"),
    (0, b"LUKS\xba\xbe", "LUKS (encrypted, cannot be read)"),
    (0x200, b"LABELONE", "LVM (cannot be read: put /boot on a partition of its own)"),
    (0x1000, b"\xfc\x4e\x2b\xa9", "RAID (cannot be read)"),
    (0, b"\xfc\x4e\x2b\xa9", "RAID (cannot be read)"),
    (0xff6, b"SWAPSPACE2", "swap space"),
    (0, b"QFI\xfb", "a qcow2 image inside the disk (convert it to a raw one)"),
];

/// Where ext's superblock has its magic number.
const EXT_MAGIC: u64 = 0x438;

pub(super) fn recognize(window: &Window) -> io::Result<Kind> {
    if window.len() >= 2048 && u16_at(&window.array::<2>(EXT_MAGIC)?, 0) == 0xef53 {
        return Ok(Kind::Ext);
    }
    for (offset, sign, name) in SIGNS {
        let mut bytes = vec![0; sign.len()];
        if offset + sign.len() as u64 <= window.len() {
            window.read(&mut bytes, *offset)?;
            if bytes == *sign {
                return Ok(Kind::Other(name));
            }
        }
    }
    if window.len() >= fat::BOOT_SECTOR as u64 {
        let sector = window.array::<{ fat::BOOT_SECTOR }>(0)?;
        if fat::Layout::of(&sector, window.len()).is_ok() {
            return Ok(Kind::Fat);
        }
    }
    Ok(Kind::Other("no known file system"))
}
