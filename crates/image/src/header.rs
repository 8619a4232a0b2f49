//! The header of a qcow2 image, and what it is checked for before anything else is read.

use std::io;
use std::ops::Range;

use crate::cache::index;
use crate::compressed::Compression;
use crate::error::Error;
use crate::format::Format;
use crate::storage::Storage;

pub(crate) const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Length of the header of version 2, and the least of version 3.
const LENGTH_2: u64 = 72;
pub(crate) const LENGTH_3: u64 = 104;
/// Cluster sizes of the format: 512 bytes to 2 MiB.
pub(crate) const CLUSTER_BITS: Range<u32> = 9..22;
/// Most of the first cluster that is read: header, extensions and the backing file's name are much
/// shorter.
const HEAD: u64 = 64 << 10;
/// Longest name of a backing file.
pub(crate) const MAX_NAME: usize = 1023;
/// Most entries of a first-level table, and of the table of reference counts: 512 KiB each, for a
/// disk of 32 TiB with clusters of 64 KiB.
pub(crate) const MAX_ENTRIES: u64 = 1 << 16;
/// Longest table of reference counts, as in QEMU.
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;
/// Most extensions of the header.
const MAX_EXTENSIONS: usize = 64;

/// Extensions of the header.
pub(crate) mod extension {
    pub(crate) const END: u32 = 0;
    pub(crate) const BACKING_FORMAT: u32 = 0xe279_2aca;
}

mod incompatible {
    pub(super) const DIRTY: u64 = 1;
    pub(super) const CORRUPT: u64 = 2;
    pub(super) const EXTERNAL_DATA: u64 = 4;
    pub(super) const COMPRESSION: u64 = 8;
    pub(super) const EXTENDED_L2: u64 = 16;
}

/// Where the size of the guest's disk stands.
pub(crate) const SIZE_AT: u64 = 24;
/// Where the autoclear features stand, in version 3.
pub(crate) const AUTOCLEAR_AT: u64 = 88;

/// The header of a qcow2 image. Offsets and lengths in it are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Clusters have two to the power of this bytes.
    pub cluster_bits: u32,
    /// Bytes of the guest's disk when the header was read.
    pub size: u64,
    /// What the image is a change of.
    pub backing: Option<Backing>,
    /// Internal snapshots.
    pub snapshots: u32,
    /// It was not closed cleanly, and its reference counts may be wrong.
    pub dirty: bool,
    /// A program has found its metadata damaged.
    pub corrupt: bool,
    pub(crate) l1_at: u64,
    pub(crate) l1_entries: u64,
    pub(crate) refcounts_at: u64,
    pub(crate) refcounts_clusters: u64,
    pub(crate) refcount_order: u32,
    pub(crate) autoclear: u64,
    pub(crate) compression: Compression,
}

/// The name of an image's backing file, as the image has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    /// Absolute, or from the image's directory.
    pub name: String,
    /// Its format, where the image states it.
    pub format: Option<Format>,
}

impl Header {
    /// Reads and checks the header of the image in `storage`.
    ///
    /// # Errors
    /// It is no qcow2 image, has features that are not supported, or contradicts itself.
    pub fn read(storage: &impl Storage) -> Result<Self, Error> {
        let mut fixed = vec![0; index(LENGTH_3 + 8)];
        storage.read_at(&mut fixed, 0)?;
        if fixed[..4] != MAGIC {
            return Err(Error::NotQcow2);
        }
        let version = u32_at(&fixed, 4)?;
        if !(2..=3).contains(&version) {
            return Err(Error::Unsupported(format!("version {version} of the format")));
        }
        let cluster_bits = u32_at(&fixed, 20)?;
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return Err(Error::Damaged(format!("clusters of 2^{cluster_bits} bytes")));
        }
        let mut head = vec![0; index(HEAD.min(1 << cluster_bits))];
        storage.read_at(&mut head, 0)?;
        let (features, header_length) = match version {
            2 => (Features::default(), LENGTH_2),
            _ => Features::read(&head)?,
        };
        if u32_at(&head, 32)? != 0 {
            return Err(Error::Unsupported("encryption".to_owned()));
        }
        let format = backing_format(&head, header_length)?;
        let header = Self {
            version,
            cluster_bits,
            size: u64_at(&head, index(SIZE_AT))?,
            backing: backing_name(&head)?.map(|name| Backing { name, format }),
            snapshots: u32_at(&head, 60)?,
            dirty: features.incompatible & incompatible::DIRTY != 0,
            corrupt: features.incompatible & incompatible::CORRUPT != 0,
            l1_at: u64_at(&head, 40)?,
            l1_entries: u32_at(&head, 36)?.into(),
            refcounts_at: u64_at(&head, 48)?,
            refcounts_clusters: u32_at(&head, 56)?.into(),
            refcount_order: features.refcount_order,
            autoclear: features.autoclear,
            compression: features.compression,
        };
        header.check()?;
        Ok(header)
    }

    /// Checks that the image is not one of those that may only be read.
    ///
    /// # Errors
    /// Why, and what to do.
    pub fn may_be_written(&self) -> Result<(), Error> {
        let why = if self.snapshots > 0 {
            "it has internal snapshots, and is only read: remove them with qemu-img snapshot -d"
        } else if self.corrupt {
            "it is marked as damaged: repair it with qemu-img check -r all"
        } else if self.dirty {
            "it was not closed cleanly: repair it with qemu-img check -r all"
        } else {
            return Ok(());
        };
        Err(Error::ReadOnly(why.to_owned()))
    }

    /// Bytes of a cluster.
    pub fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of the guest's disk that one second-level table maps.
    pub(crate) fn mapped_by_table(&self) -> u64 {
        self.cluster() * (self.cluster() / 8)
    }

    /// Entries of the table of reference counts that are looked at.
    pub(crate) fn refcount_entries(&self) -> u64 {
        (self.refcounts_clusters * (self.cluster() / 8)).min(MAX_ENTRIES)
    }

    fn check(&self) -> Result<(), Error> {
        let damaged = |what: String| Err(Error::Damaged(what));
        let needed = self.size.div_ceil(self.mapped_by_table());
        if self.size > i64::MAX as u64 || needed > MAX_ENTRIES || self.l1_entries > MAX_ENTRIES {
            return Err(Error::Unsupported(format!(
                "{} bytes in clusters of {}: too many tables",
                self.size,
                self.cluster()
            )));
        }
        if self.l1_entries < needed {
            return damaged(format!("a table of {} entries for {needed}", self.l1_entries));
        }
        if self.refcounts_clusters * self.cluster() > MAX_REFCOUNT_TABLE {
            return Err(Error::Unsupported(format!(
                "{} clusters of reference counts",
                self.refcounts_clusters
            )));
        }
        for (at, length) in [(self.l1_at, self.l1_entries), (self.refcounts_at, self.refcounts_clusters)] {
            let is_header = at == 0 && length > 0;
            if is_header || !at.is_multiple_of(self.cluster()) || at > crate::entry::OFFSET {
                return damaged(format!("a table at {at:#x}"));
            }
        }
        Ok(())
    }
}

/// What version 3 adds.
struct Features {
    incompatible: u64,
    autoclear: u64,
    refcount_order: u32,
    compression: Compression,
}

impl Default for Features {
    fn default() -> Self {
        Self { incompatible: 0, autoclear: 0, refcount_order: 4, compression: Compression::Zlib }
    }
}

impl Features {
    /// The features, and the header's length.
    fn read(head: &[u8]) -> Result<(Self, u64), Error> {
        let incompatible = u64_at(head, 72)?;
        let known = incompatible::DIRTY | incompatible::CORRUPT | incompatible::COMPRESSION;
        if incompatible & incompatible::EXTERNAL_DATA != 0 {
            return Err(Error::Unsupported("an external data file".to_owned()));
        }
        if incompatible & incompatible::EXTENDED_L2 != 0 {
            return Err(Error::Unsupported("extended L2 entries".to_owned()));
        }
        if incompatible & !known != 0 {
            return Err(Error::Unsupported(format!("the features {:#x}", incompatible & !known)));
        }
        let length = u64::from(u32_at(head, 100)?);
        if length < LENGTH_3 || length > head.len() as u64 || !length.is_multiple_of(8) {
            return Err(Error::Damaged(format!("a header of {length} bytes")));
        }
        let kind = if length > LENGTH_3 { head[index(LENGTH_3)] } else { 0 };
        let compression = match kind {
            0 => Compression::Zlib,
            1 => Compression::Zstd,
            _ => return Err(Error::Unsupported(format!("compression of type {kind}"))),
        };
        let refcount_order = u32_at(head, 96)?;
        if refcount_order > 6 {
            return Err(Error::Damaged(format!("reference counts of 2^{refcount_order} bits")));
        }
        Ok((Self { incompatible, autoclear: u64_at(head, 88)?, refcount_order, compression }, length))
    }
}

fn backing_name(head: &[u8]) -> Result<Option<String>, Error> {
    let (at, length) = (u64_at(head, 8)?, u32_at(head, 16)? as usize);
    if at == 0 {
        return Ok(None);
    }
    let name = usize::try_from(at)
        .ok()
        .and_then(|at| head.get(at..)?.get(..length))
        .filter(|name| !name.is_empty() && name.len() <= MAX_NAME)
        .ok_or_else(|| Error::Damaged(format!("a backing file's name of {length} bytes at {at:#x}")))?;
    match std::str::from_utf8(name) {
        Ok(name) if !name.chars().any(char::is_control) => Ok(Some(name.to_owned())),
        _ => Err(Error::Unsupported("a backing file whose name is not printable UTF-8".to_owned())),
    }
}

/// The backing file's format, as an extension of the header states it.
fn backing_format(head: &[u8], header_length: u64) -> Result<Option<Format>, Error> {
    let mut at = index(header_length);
    for _ in 0..MAX_EXTENSIONS {
        // The head may end without an end of the extensions.
        let (Ok(kind), Ok(length)) = (u32_at(head, at), u32_at(head, at + 4)) else { return Ok(None) };
        let content = head.get(at + 8..).and_then(|rest| rest.get(..length as usize));
        match (kind, content) {
            (extension::END, _) => return Ok(None),
            (_, None) => return Err(Error::Damaged(format!("an extension of {length} bytes"))),
            (extension::BACKING_FORMAT, Some(b"raw")) => return Ok(Some(Format::Raw)),
            (extension::BACKING_FORMAT, Some(b"qcow2")) => return Ok(Some(Format::Qcow2)),
            (extension::BACKING_FORMAT, Some(name)) => {
                let name = String::from_utf8_lossy(name).escape_default().to_string();
                return Err(Error::Unsupported(format!("a backing file of format {name:.40}")));
            }
            (_, Some(_)) => at += 8 + (length as usize).next_multiple_of(8),
        }
    }
    Err(Error::Damaged("too many extensions".to_owned()))
}

fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    let four = bytes.get(at..).and_then(|rest| rest.first_chunk());
    four.map(|four| u32::from_be_bytes(*four)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn u64_at(bytes: &[u8], at: usize) -> io::Result<u64> {
    let eight = bytes.get(at..).and_then(|rest| rest.first_chunk());
    eight.map(|eight| u64::from_be_bytes(*eight)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
