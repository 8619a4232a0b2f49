//! FAT12, FAT16 and FAT32, for reading.
//!
//! Our own: fatfs 0.3 follows chains of clusters that lead back into themselves without end, and
//! panics at numbers that no formatter writes. It makes the disks of our tests.

use std::io;

use super::{Content, FileSystem, MAX_NAMES, Node};
use crate::disk::{Window, u16_at, u32_at};

/// Bytes of the first sector that are looked at.
pub(super) const BOOT_SECTOR: usize = 512;
/// Most bytes of a directory, as the specification has it.
const MAX_DIRECTORY: u64 = 2 << 20;
/// Most pieces that a file is in. A file of 1 GiB in a few thousand is badly fragmented.
const MAX_PIECES: usize = 64 << 10;
const ENTRY: usize = 32;

const READ_ONLY_TO_VOLUME: u8 = 0x0f;
const VOLUME_LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Bits12,
    Bits16,
    Bits32,
}

/// Where everything is, in bytes: within the partition, whatever the first sector says.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    width: Width,
    table: u64,
    /// The root directory of FAT12 and FAT16.
    root: (u64, u64),
    /// The root directory's first cluster, of FAT32.
    root_cluster: u32,
    data: u64,
    cluster: u64,
    /// Clusters are numbered from 2 up to this, exclusive.
    end: u32,
}

impl Layout {
    /// Reads a file system's first sector; its partition is `length` bytes long.
    pub(super) fn of(sector: &[u8; BOOT_SECTOR], length: u64) -> Result<Self, &'static str> {
        let bytes = u64::from(u16_at(sector, 11));
        let cluster = u64::from(sector[13]);
        let (reserved, tables) = (u64::from(u16_at(sector, 14)), u64::from(sector[16]));
        let root_entries = u64::from(u16_at(sector, 17));
        let either = |short: u16, long: u32| if short == 0 { u64::from(long) } else { short.into() };
        let total = either(u16_at(sector, 19), u32_at(sector, 32));
        let wide = u16_at(sector, 22) == 0;
        let per_table = either(u16_at(sector, 22), u32_at(sector, 36));
        let sane = [512, 1024, 2048, 4096].contains(&bytes)
            && cluster.is_power_of_two()
            && reserved > 0
            && (1..=4).contains(&tables)
            && (sector[21] == 0xf0 || sector[21] >= 0xf8)
            && per_table > 0
            && wide == (root_entries == 0);
        if !sane {
            return Err("its first sector is not that of a FAT file system");
        }
        if total * bytes > length {
            return Err("it is longer than its partition");
        }
        // No product overflows: each factor has at most 32 bits, and few have more than 16.
        let root = (reserved + tables * per_table) * bytes;
        let root_len = (root_entries * ENTRY as u64).next_multiple_of(bytes);
        let data = root + root_len;
        let clusters = (total * bytes).saturating_sub(data) / (cluster * bytes);
        let width = match clusters {
            0 => return Err("it has no room for files"),
            _ if wide => Width::Bits32,
            1..4085 => Width::Bits12,
            4085..65525 => Width::Bits16,
            _ => return Err("its number of clusters does not fit its kind"),
        };
        let bits = match width {
            Width::Bits12 => 12,
            Width::Bits16 => 16,
            Width::Bits32 => 32,
        };
        let entries = per_table * bytes * 8 / bits;
        let end = u32::try_from((clusters + 2).min(entries).min(0x0fff_fff6)).unwrap_or(u32::MAX);
        let root_cluster = if wide { u32_at(sector, 44) } else { 0 };
        let cluster = cluster * bytes;
        Ok(Self { width, table: reserved * bytes, root: (root, root_len), root_cluster, data, cluster, end })
    }
}

struct Fat {
    window: Window,
    layout: Layout,
    uuid: String,
    label: String,
}

pub(super) fn open(window: Window) -> io::Result<Box<dyn FileSystem>> {
    let sector = window.array::<BOOT_SECTOR>(0)?;
    let layout = Layout::of(&sector, window.len()).map_err(io::Error::other)?;
    let at = if layout.width == Width::Bits32 { 0x43 } else { 0x27 };
    let id = u32_at(&sector, at);
    let label = String::from_utf8_lossy(&sector[at + 4..at + 15]).trim_end().to_owned();
    let uuid = format!("{:04X}-{:04X}", id >> 16, id & 0xffff);
    Ok(Box::new(Fat { window, layout, uuid, label }))
}

/// A file or directory as its parent lists it.
struct Entry {
    name: String,
    directory: bool,
    cluster: u32,
    length: u32,
}

/// A piece of a file: where it begins in the file and in the partition, and its length.
type Piece = (u64, u64, u64);

impl Fat {
    /// The cluster after `cluster`, which is valid; `None`: it is the last.
    fn next(&self, cluster: u32) -> io::Result<Option<u32>> {
        let at = u64::from(cluster);
        let pair = |at: u64| self.window.array::<2>(self.layout.table + at).map(|bytes| u16_at(&bytes, 0));
        let (next, last) = match self.layout.width {
            Width::Bits12 => {
                let both = pair(at + at / 2)?;
                (u32::from(if cluster & 1 == 0 { both & 0xfff } else { both >> 4 }), 0xff8)
            }
            Width::Bits16 => (pair(at * 2)?.into(), 0xfff8),
            Width::Bits32 => {
                let bytes = self.window.array::<4>(self.layout.table + at * 4)?;
                (u32_at(&bytes, 0) & 0x0fff_ffff, 0x0fff_fff8)
            }
        };
        if next >= last { Ok(None) } else { self.valid(next).map(Some) }
    }

    fn valid(&self, cluster: u32) -> io::Result<u32> {
        if (2..self.layout.end).contains(&cluster) {
            Ok(cluster)
        } else {
            Err(io::Error::other("a file's chain of clusters is broken"))
        }
    }

    /// The pieces of the chain from `first` on, up to `length` bytes.
    fn pieces(&self, first: u32, length: u64) -> io::Result<Vec<Piece>> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut next = if length == 0 { None } else { Some(self.valid(first)?) };
        let mut at = 0;
        while let Some(cluster) = next.filter(|_| at < length) {
            let place = self.layout.data + u64::from(cluster - 2) * self.layout.cluster;
            match pieces.last_mut() {
                Some((_, start, len)) if *start + *len == place => *len += self.layout.cluster,
                _ => pieces.push((at, place, self.layout.cluster)),
            }
            if pieces.len() > MAX_PIECES {
                return Err(io::Error::other("a file is in too many pieces"));
            }
            at += self.layout.cluster;
            next = if at < length { self.next(cluster)? } else { None };
        }
        Ok(pieces)
    }

    /// All bytes of a directory; `None`: of the root.
    fn directory(&self, cluster: Option<u32>) -> io::Result<Vec<u8>> {
        let cluster = match cluster {
            Some(cluster) => cluster,
            None if self.layout.width == Width::Bits32 => self.layout.root_cluster,
            None => {
                let (start, length) = self.layout.root;
                let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
                self.window.read(&mut bytes, start)?;
                return Ok(bytes);
            }
        };
        let pieces = self.pieces(cluster, MAX_DIRECTORY)?;
        let mut bytes = Vec::new();
        for (_, start, length) in pieces {
            let old = bytes.len();
            bytes.resize(old + usize::try_from(length).map_err(io::Error::other)?, 0);
            self.window.read(&mut bytes[old..], start)?;
        }
        Ok(bytes)
    }

    fn entries(&self, cluster: Option<u32>) -> io::Result<Vec<Entry>> {
        Ok(entries(&self.directory(cluster)?))
    }

    /// What is at `path`; `None`: the root directory.
    fn find(&self, path: &str) -> io::Result<Option<Entry>> {
        let mut found: Option<Entry> = None;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let cluster = match &found {
                None => None,
                // A directory's entry ".." of the root has no cluster.
                Some(entry) if entry.directory => Some(entry.cluster).filter(|cluster| *cluster != 0),
                Some(_) => return Err(io::ErrorKind::NotFound.into()),
            };
            let wanted = name.to_lowercase();
            let entry = self.entries(cluster)?.into_iter().find(|entry| entry.name.to_lowercase() == wanted);
            found = Some(entry.ok_or(io::ErrorKind::NotFound)?);
        }
        Ok(found)
    }
}

impl FileSystem for Fat {
    fn kind(&self) -> &'static str {
        "FAT"
    }

    fn uuid(&self) -> &str {
        &self.uuid
    }

    fn label(&self) -> &str {
        &self.label
    }

    fn node(&self, path: &str) -> io::Result<Node> {
        Ok(match self.find(path)? {
            Some(entry) if !entry.directory => Node::File(entry.length.into()),
            _ => Node::Directory,
        })
    }

    fn link(&self, _: &str) -> io::Result<String> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let cluster = self.find(path)?.map(|entry| entry.cluster).filter(|cluster| *cluster != 0);
        let entries = self.entries(cluster)?.into_iter();
        Ok(entries.map(|entry| entry.name).filter(|name| name != "." && name != "..").collect())
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn Content>> {
        let entry = self.find(path)?.filter(|entry| !entry.directory).ok_or(io::ErrorKind::NotFound)?;
        let pieces = self.pieces(entry.cluster, entry.length.into())?;
        Ok(Box::new(File { window: self.window.clone(), pieces, length: entry.length.into() }))
    }
}

struct File {
    window: Window,
    pieces: Vec<Piece>,
    length: u64,
}

impl Content for File {
    fn read(&mut self, mut buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = offset;
        while !buffer.is_empty() {
            let index = self.pieces.partition_point(|(begin, ..)| *begin <= at);
            let piece = index.checked_sub(1).map(|index| self.pieces[index]);
            let within = piece.and_then(|(begin, start, len)| {
                let skipped = at - begin;
                (skipped < len).then(|| (start + skipped, len - skipped))
            });
            let (start, left) = within.ok_or(io::ErrorKind::UnexpectedEof)?;
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let (now, later) = buffer.split_at_mut(count);
            self.window.read(now, start)?;
            at += count as u64;
            buffer = later;
        }
        Ok(())
    }
}

/// The entries of a directory, each with its long name where it has a valid one.
fn entries(bytes: &[u8]) -> Vec<Entry> {
    let mut found = Vec::new();
    // The parts of a long name come last part first, before the entry that they belong to.
    let mut long: Vec<u16> = Vec::new();
    let mut sum = None;
    for raw in bytes.chunks_exact(ENTRY) {
        match raw[0] {
            0 => break,
            0xe5 => {
                sum = None;
                continue;
            }
            _ => {}
        }
        let attributes = raw[11];
        if attributes & 0x3f == READ_ONLY_TO_VOLUME {
            if raw[0] & 0x40 != 0 || sum != Some(raw[13]) || long.len() > 255 {
                long.clear();
                sum = Some(raw[13]);
            }
            let part = [1..11, 14..26, 28..32].into_iter().flat_map(|range| raw[range].chunks_exact(2));
            let part: Vec<u16> = part.map(|unit| u16_at(unit, 0)).collect();
            long.splice(0..0, part);
            continue;
        }
        let name = match sum.take() {
            Some(sum) if sum == short_sum(&raw[..11]) => {
                let end = long.iter().position(|unit| *unit == 0).unwrap_or(long.len());
                String::from_utf16(&long[..end]).ok().filter(|name| !name.contains('/'))
            }
            _ => None,
        };
        if attributes & VOLUME_LABEL == 0 {
            found.push(Entry {
                name: name.unwrap_or_else(|| short_name(raw)),
                directory: attributes & DIRECTORY != 0,
                cluster: u32::from(u16_at(raw, 20)) << 16 | u32::from(u16_at(raw, 26)),
                length: u32_at(raw, 28),
            });
        }
        if found.len() == MAX_NAMES {
            break;
        }
    }
    found
}

/// What a long name's parts say of the short name that they belong to.
fn short_sum(name: &[u8]) -> u8 {
    name.iter().fold(0, |sum: u8, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// A name of eight and three characters, in lower case where the entry says so.
fn short_name(raw: &[u8]) -> String {
    let part = |bytes: &[u8], lower: bool| {
        let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
        if lower { text.to_lowercase() } else { text }
    };
    let (base, extension) = (part(&raw[..8], raw[12] & 8 != 0), part(&raw[8..11], raw[12] & 16 != 0));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}
