//! Direct I/O (`O_DIRECT`): the kernel moves data between a file's storage and the caller's memory
//! without its page cache. It takes only aligned addresses, offsets and lengths.
//!
//! Direct does not mean durable: what was written may still lie in the storage's own cache, until
//! `fdatasync`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, OFlags, StatxFlags, fcntl_getfl, fcntl_setfl, statx};

use crate::iovec::IoVec;

/// The coarsest alignment that is accepted: a page. Storage with larger blocks is rare, and guests
/// take no larger ones either.
pub const COARSEST: u32 = 4096;

/// Blocks that are tried where the kernel does not tell the alignment.
const TRIED: [u32; 2] = [512, COARSEST];

/// What direct I/O on a file asks for. Both values are powers of two up to [`COARSEST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// Addresses of memory are multiples of this.
    pub memory: u32,
    /// Offsets in the file and lengths of pieces are multiples of this.
    pub block: u32,
}

impl Alignment {
    /// What direct I/O on `file` asks for; `None`: `file` is not open for direct I/O.
    ///
    /// # Errors
    /// Direct I/O is switched on, and does not work.
    pub fn of(file: &File) -> io::Result<Option<Self>> {
        if fcntl_getfl(file)?.contains(OFlags::DIRECT) { measure(file).map(Some) } else { Ok(None) }
    }

    /// Whether direct I/O at `offset` may use `pieces`.
    #[must_use]
    pub fn fits(self, offset: u64, pieces: &[IoVec]) -> bool {
        let fits = |piece: &IoVec| {
            self.memory_fits(piece.base().addr() as u64) && self.block_fits(piece.len() as u64)
        };
        self.block_fits(offset) && pieces.iter().all(fits)
    }

    /// Whether memory may begin at `address`.
    #[must_use]
    pub fn memory_fits(self, address: u64) -> bool {
        address.is_multiple_of(self.memory.into())
    }

    /// Whether `bytes` may be an offset in the file, or a length.
    #[must_use]
    pub fn block_fits(self, bytes: u64) -> bool {
        bytes.is_multiple_of(self.block.into())
    }
}

/// Switches direct I/O on for `file`, which must not be empty, and reads its first block to try it.
///
/// # Errors
/// Direct I/O does not work on this file. It is switched off then.
pub fn switch_on(file: &File) -> io::Result<Alignment> {
    let flags = fcntl_getfl(file)?;
    fcntl_setfl(file, flags | OFlags::DIRECT)?;
    let measured = measure(file);
    if measured.is_err() {
        fcntl_setfl(file, flags)?;
    }
    measured
}

/// Switches direct I/O off for `file`.
///
/// # Errors
/// The kernel's.
pub fn switch_off(file: &File) -> io::Result<()> {
    Ok(fcntl_setfl(file, fcntl_getfl(file)? - OFlags::DIRECT)?)
}

/// What direct I/O asks for, by the kernel's word where it gives one, and by trial.
fn measure(file: &File) -> io::Result<Alignment> {
    let told = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)?;
    if told.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        // Linux before 6.1, and file systems that do not tell.
        return by_trial(file);
    }
    let alignment = Alignment { memory: told.stx_dio_mem_align, block: told.stx_dio_offset_align };
    if alignment.block == 0 {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the file system does no direct I/O on this file",
        ));
    }
    if [alignment.memory, alignment.block].iter().any(|n| !n.is_power_of_two() || *n > COARSEST) {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "direct I/O on this file needs an alignment of {} bytes, more than {COARSEST}",
                alignment.memory.max(alignment.block)
            ),
        ));
    }
    try_block(file, alignment.block)?;
    Ok(alignment)
}

fn by_trial(file: &File) -> io::Result<Alignment> {
    let mut result = Err(io::ErrorKind::Unsupported.into());
    for block in TRIED {
        result = try_block(file, block).map(|()| Alignment { memory: block, block });
        // Any other error is no matter of alignment.
        if !matches!(&result, Err(e) if e.kind() == io::ErrorKind::InvalidInput) {
            break;
        }
    }
    result
}

/// Reads block 1, or block 0 of a file that has no more.
fn try_block(file: &File, block: u32) -> io::Result<()> {
    let offset = if file.metadata()?.len() >= 2 * u64::from(block) { block.into() } else { 0 };
    let mut page = Box::new(Page([0; COARSEST as usize]));
    file.read_at(&mut page.0[..block as usize], offset).map(drop)
}

#[repr(align(4096))]
struct Page([u8; COARSEST as usize]);

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of `length` bytes on a disk, unlike `/tmp` almost everywhere.
    fn file(length: u64) -> File {
        let file = tempfile::tempfile_in("/var/tmp").unwrap();
        file.set_len(length).unwrap();
        file
    }

    #[test]
    fn what_is_aligned_as_told_works_and_what_is_not_does_not() {
        let file = file(1 << 16);
        assert_eq!(Alignment::of(&file).unwrap(), None, "direct I/O is not switched on yet");
        let Ok(alignment) = switch_on(&file) else {
            eprintln!("SKIPPED: /var/tmp is on a file system without direct I/O");
            return;
        };
        assert_eq!(Alignment::of(&file).unwrap(), Some(alignment));
        let mut page = Box::new(Page([1; 4096]));
        let block = alignment.block as usize;
        assert_eq!(file.write_at(&page.0[..block], 3 * u64::from(alignment.block)).unwrap(), block);
        assert_eq!(file.read_at(&mut page.0[..block], 5 * u64::from(alignment.block)).unwrap(), block);
        if block > 1 {
            let refused = file.write_at(&page.0[..block], 1).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
            assert!(!alignment.block_fits(1));
        }
    }

    #[test]
    fn a_trial_finds_no_finer_alignment_than_the_kernel_tells() {
        let file = file(1 << 16);
        let Ok(told) = switch_on(&file) else {
            eprintln!("SKIPPED: /var/tmp is on a file system without direct I/O");
            return;
        };
        let tried = by_trial(&file).unwrap();
        assert!(tried.block >= told.block && tried.memory >= told.memory, "{tried:?} {told:?}");
    }

    #[test]
    fn what_has_no_direct_io_stays_as_it_was() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        let pipe = File::from(reader);
        let before = fcntl_getfl(&pipe).unwrap();
        switch_on(&pipe).unwrap_err();
        assert_eq!(fcntl_getfl(&pipe).unwrap(), before);
    }

    #[test]
    fn address_offset_and_lengths_all_count() {
        let alignment = Alignment { memory: 512, block: 4096 };
        let piece = |address: usize, len| IoVec::new(std::ptr::without_provenance_mut(address), len);
        assert!(alignment.fits(8192, &[piece(512, 4096), piece(0x3000, 8192)]));
        assert!(!alignment.fits(512, &[piece(512, 4096)]));
        assert!(!alignment.fits(0, &[piece(256, 4096)]));
        assert!(!alignment.fits(0, &[piece(512, 2048), piece(0x3000, 2048)]));
    }
}
