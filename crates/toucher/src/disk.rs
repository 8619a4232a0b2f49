//! Patterns on a disk: written through the page cache, flushed, and read back from the device
//! itself.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::libc_memory::Mapping;
use crate::pattern::{self, PAGE};

/// Bytes read or written at once: several requests' worth for any block device.
const PIECE: usize = 256 << 10;

/// Writes `bytes` (rounded up to [`PIECE`]) of the pattern of `seed` at the start of `path`, then
/// reads them back around the page cache. Returns the bytes written and the pages that came back
/// wrong.
pub(crate) fn write_and_read(path: &Path, bytes: usize, seed: u64) -> io::Result<(usize, usize)> {
    let pieces = bytes.div_ceil(PIECE);
    // Pages of a mapping are aligned as direct reads need it.
    let mut buffer = Mapping::anonymous(PIECE)?;
    let mut out = OpenOptions::new().write(true).open(path)?;
    for piece in 0..pieces {
        for (index, page) in buffer.words_mut().chunks_exact_mut(pattern::words()).enumerate() {
            pattern::fill(page, seed, number(piece, index));
        }
        out.write_all(buffer.bytes())?;
    }
    out.sync_all()?;
    let mut direct = File::options().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let mut mismatched = 0;
    for piece in 0..pieces {
        direct.read_exact(buffer.bytes_mut())?;
        let pages = buffer.words().chunks_exact(pattern::words()).enumerate();
        mismatched +=
            pages.filter(|(index, page)| !pattern::holds(page, seed, number(piece, *index))).count();
    }
    Ok((pieces * PIECE, mismatched))
}

/// Reads the first `bytes` of `path` through the page cache, which keeps them. Returns how many
/// there were.
pub(crate) fn cache(path: &Path, bytes: usize) -> io::Result<u64> {
    let file = File::open(path)?;
    let read = io::copy(&mut (&file).take(bytes as u64), &mut io::sink());
    // The cache of a block device is dropped when no process has it open any more.
    std::mem::forget(file);
    read
}

/// The number on the disk of page `index` of `piece`.
fn number(piece: usize, index: usize) -> u64 {
    (piece * (PIECE / PAGE) + index) as u64
}
