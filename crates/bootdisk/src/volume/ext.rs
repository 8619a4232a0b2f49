//! Ext2, ext3 and ext4, by `ext4-view`.
//!
//! After a reset, what was written last is in the journal only. `ext4-view` replays it in memory as
//! far as its file goes: not from its beginning again where the log wraps around, which leaves the
//! file system as it was some seconds before. A journal that it does not understand (ext3's, and
//! any without checksums), or that is longer than may be read, is passed over, as GRUB passes over
//! all of them.

use std::io;

use ext4_view::{Ext4, Ext4Error, Ext4Read};

use super::{Content, FileSystem, MAX_NAMES, MAX_PATH, Node};
use crate::disk::{Window, u32_at};

/// Most groups of blocks, whose descriptors are kept in memory: 32 TiB have as many.
const MAX_GROUPS: u64 = 1 << 18;

/// Length of the superblock, and where it is.
const SUPERBLOCK: usize = 1024;
const FEATURES: usize = 0x60;
const NEEDS_RECOVERY: u32 = 4;
/// Features that do not keep anybody from reading; of these, checksums.
const READ_ONLY_FEATURES: usize = 0x64;
const METADATA_CHECKSUMS: u32 = 0x400;
const CHECKSUM: usize = 0x3fc;

struct Ext {
    inner: Ext4,
    uuid: String,
    label: String,
}

struct Reader {
    window: Window,
    /// What is read in place of the superblock.
    superblock: Option<[u8; SUPERBLOCK]>,
}

impl Ext4Read for Reader {
    fn read(
        &mut self,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        match &self.superblock {
            Some(superblock) if offset == SUPERBLOCK as u64 && buffer.len() == SUPERBLOCK => {
                buffer.copy_from_slice(superblock);
                Ok(())
            }
            _ => Ok(self.window.read(buffer, offset)?),
        }
    }
}

pub(super) fn open(window: Window) -> io::Result<Box<dyn FileSystem>> {
    let superblock = window.array::<SUPERBLOCK>(SUPERBLOCK as u64)?;
    check(&window, &superblock)?;
    let load = |superblock| {
        let reader = Reader { window: window.clone(), superblock };
        Ext4::load(Box::new(reader)).map_err(error)
    };
    let inner = match clean(superblock) {
        Some(clean) => load(None).or_else(|_| {
            // Reading the log may have taken all that may be read.
            window.renew();
            load(Some(clean))
        })?,
        None => load(None)?,
    };
    let uuid = inner.uuid().to_string();
    let label = inner.label().display().to_string();
    Ok(Box::new(Ext { inner, uuid, label }))
}

/// Refuses a superblock whose numbers of blocks and groups do not fit its partition: as many
/// descriptors would be read.
fn check(window: &Window, superblock: &[u8; SUPERBLOCK]) -> io::Result<()> {
    let wrong = |what| Err(io::Error::other(what));
    let blocks = u64::from(u32_at(superblock, 4)) | u64::from(u32_at(superblock, 0x150)) << 32;
    let shift = u32_at(superblock, 24);
    if shift > 6 {
        return wrong("its blocks are too large");
    }
    let block = 1024 << shift;
    // The upper half counts only with a feature; without, most write zeros there.
    let wide = u32_at(superblock, FEATURES) & 0x80 != 0;
    let blocks = if wide { blocks } else { blocks & 0xffff_ffff };
    if blocks.checked_mul(block).is_none_or(|length| length > window.len()) {
        return wrong("it is longer than its partition");
    }
    let group = u64::from(u32_at(superblock, 32));
    if group < 256 || blocks / group > MAX_GROUPS {
        return wrong("it has too many groups of blocks");
    }
    if !wide && u32_at(superblock, 0x150) != 0 {
        return wrong("its number of blocks is not valid");
    }
    Ok(())
}

/// `superblock` as if the journal were empty; `None`: it is.
fn clean(mut superblock: [u8; SUPERBLOCK]) -> Option<[u8; SUPERBLOCK]> {
    let features = u32_at(&superblock, FEATURES);
    if features & NEEDS_RECOVERY == 0 {
        return None;
    }
    superblock[FEATURES..][..4].copy_from_slice(&(features & !NEEDS_RECOVERY).to_le_bytes());
    if u32_at(&superblock, READ_ONLY_FEATURES) & METADATA_CHECKSUMS != 0 {
        // Unlike others that use this polynomial, ext4 does not invert the result.
        let sum = !crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(&superblock[..CHECKSUM]);
        superblock[CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
    }
    Some(superblock)
}

impl FileSystem for Ext {
    fn kind(&self) -> &'static str {
        "ext4"
    }

    fn uuid(&self) -> &str {
        &self.uuid
    }

    fn label(&self) -> &str {
        &self.label
    }

    fn node(&self, path: &str) -> io::Result<Node> {
        let found = self.inner.symlink_metadata(path).map_err(error)?;
        let kind = found.file_type();
        Ok(match () {
            () if kind.is_regular_file() => Node::File(found.len()),
            () if kind.is_dir() => Node::Directory,
            // The crate reads a link as a whole, whatever its length.
            () if kind.is_symlink() && found.len() <= MAX_PATH as u64 => Node::Link,
            () => Node::Other,
        })
    }

    fn link(&self, path: &str) -> io::Result<String> {
        let target = self.inner.read_link(path).map_err(error)?;
        target.to_str().map(str::to_owned).map_err(io::Error::other)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.inner.read_dir(path).map_err(error)?.take(MAX_NAMES) {
            let entry = entry.map_err(error)?;
            names.extend(entry.file_name().as_str().ok().map(str::to_owned));
        }
        Ok(names)
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn Content>> {
        Ok(Box::new(File(self.inner.open(path).map_err(error)?)))
    }
}

struct File(ext4_view::File);

impl Content for File {
    fn read(&mut self, mut buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.0.position() != offset {
            self.0.seek_to(offset).map_err(error)?;
        }
        while !buffer.is_empty() {
            match self.0.read_bytes(buffer).map_err(error)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => buffer = &mut buffer[count..],
            }
        }
        Ok(())
    }
}

fn error(error: Ext4Error) -> io::Error {
    match error {
        Ext4Error::NotFound | Ext4Error::NotADirectory => io::ErrorKind::NotFound.into(),
        other => io::Error::other(other.to_string()),
    }
}
