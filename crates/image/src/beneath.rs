use std::fmt;
use std::io;

use crate::cache::index;

/// What an image is a change of: it is only read.
pub trait Beneath: fmt::Debug + Send + Sync {
    /// Bytes of the disk.
    fn size(&self) -> u64;

    /// Reads `bytes` from `offset` on.
    ///
    /// # Errors
    /// They are not all on the disk, the metadata is damaged, or the kernel's.
    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Reads `bytes` from `offset` on; what lies beyond the end reads as zeros, as of a backing
    /// file that is shorter.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    fn read_padded(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let there = self.size().saturating_sub(offset).min(bytes.len() as u64);
        let (there, beyond) = bytes.split_at_mut(index(there));
        beyond.fill(0);
        if there.is_empty() { Ok(()) } else { self.read(there, offset) }
    }
}
