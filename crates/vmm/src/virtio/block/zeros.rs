//! Zeros for file systems that cannot zero a range.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What they are written from.
static ZEROS: Zeros = Zeros([0; 64 * 1024]);

/// Aligned for direct I/O: see [`plimsoll_sys::direct::COARSEST`].
#[repr(align(4096))]
struct Zeros([u8; 64 * 1024]);

/// Writes `length` zeros to `file` from `offset` on. For direct I/O both are whole blocks.
///
/// # Errors
/// The kernel's.
pub(super) fn write(file: &File, mut offset: u64, length: u64) -> io::Result<()> {
    let end = offset + length;
    while offset < end {
        let count = ZEROS.0.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
        file.write_all_at(&ZEROS.0[..count], offset)?;
        offset += count as u64;
    }
    Ok(())
}
