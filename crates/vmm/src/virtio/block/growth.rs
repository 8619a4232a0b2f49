//! Disks that grow while they run.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use super::SECTOR;
use super::engine::Engine;
use super::request::Bounds;

/// Has a disk of `bounds` grow to `size` bytes: an image is made longer, and a file or block device
/// is found to be longer by now. The bounds let requests reach the new sectors. Returns the bytes
/// that the disk has.
///
/// # Errors
/// Why it stays as it is, on one line.
pub(super) fn grow(
    file: Option<&File>,
    engine: &Engine,
    bounds: &mut Bounds,
    size: u64,
) -> Result<u64, String> {
    let length = match (file, engine) {
        (Some(mut file), _) => file.seek(SeekFrom::End(0)).map_err(|error| error.to_string())?,
        (None, Engine::Image(workers)) => {
            let grown = workers.image().grow(size);
            grown.map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
            size
        }
        (None, _) => return Err("it has no file".to_owned()),
    };
    let sectors = bounds.geometry.sectors(length);
    if sectors * SECTOR < size {
        return Err(format!("its file has {} bytes in whole blocks, and not {size}", sectors * SECTOR));
    }
    if sectors < bounds.sectors {
        return Err(format!("it has {} bytes and cannot shrink to {length}", bounds.sectors * SECTOR));
    }
    bounds.sectors = sectors;
    Ok(sectors * SECTOR)
}
