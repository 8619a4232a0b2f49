//! The guest, the same for both VMMs.

use std::path::PathBuf;

use plimsoll_units::Bytes;

/// What both VMMs run.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) kernel: PathBuf,
    pub(super) initrd: PathBuf,
    pub(super) cmdline: String,
    pub(super) size: Bytes,
    /// A read-only disk.
    pub(super) disk: PathBuf,
}
