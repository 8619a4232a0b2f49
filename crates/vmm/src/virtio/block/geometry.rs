//! The blocks of a disk: what the guest is shown, and what direct I/O asks for.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;

use plimsoll_sys::direct::{Alignment, COARSEST};
use plimsoll_sys::iovec::Buffers;

use super::SECTOR;
use super::task::Task;

/// Size of the physical block that every guest is shown: the page of the host's cache, and no finer
/// than any alignment that direct I/O asks for. A guest that aligns its requests to it needs no
/// bounce buffer.
const PHYSICAL: u32 = COARSEST;

/// The blocks of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The logical block that the guest is shown: 512 to 4096 bytes.
    ///
    /// Partition tables and some file systems are written in its units and cannot be found in
    /// others. A block device has its own. A file always has sectors of 512 bytes: it is the same
    /// disk wherever it is copied to, and requests below the alignment of its storage take the
    /// bounce buffer.
    pub(super) logical: u32,
    /// The file is open for direct I/O, which asks for this.
    pub(super) direct: Option<Alignment>,
}

impl Geometry {
    /// The blocks of `file`.
    ///
    /// # Errors
    /// The file cannot be asked, or is open for direct I/O, which does not work.
    pub fn of(file: &File) -> io::Result<Self> {
        let logical = if file.metadata()?.file_type().is_block_device() {
            // Linux' driver refuses a disk with blocks larger than a page.
            rustix::fs::ioctl_blksszget(file)?.min(PHYSICAL)
        } else {
            u32::try_from(SECTOR).expect("512")
        };
        Ok(Self { logical, direct: Alignment::of(file)? })
    }

    /// The blocks of an image: sectors, as of a file.
    pub(super) const IMAGE: Self = Self { logical: 512, direct: None };

    /// The exponent of two that makes a physical block of a logical one.
    pub(super) fn physical_exponent(self) -> u8 {
        u8::try_from((PHYSICAL / self.logical).ilog2()).expect("at most 3")
    }

    /// Whether the kernel takes `task`.
    pub(super) fn allows(self, task: &mut Task) -> bool {
        match (self.direct, task) {
            (Some(direct), Task::Move { offset, memory, .. }) => direct.fits(*offset, memory.iovecs()),
            _ => true,
        }
    }

    /// The sectors of a disk in `bytes`: whole blocks, because the rest of one cannot be written.
    pub(super) fn sectors(self, bytes: u64) -> u64 {
        bytes / self.granularity() * (self.granularity() / SECTOR)
    }

    /// What lengths and offsets are multiples of in I/O on the file.
    pub(super) fn granularity(self) -> u64 {
        self.direct.map_or(SECTOR, |direct| u64::from(direct.block).max(SECTOR))
    }
}
