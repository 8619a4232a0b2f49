//! Makes disks in memory.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use crate::{Boot, NothingFound, Source, find};

/// Files by their paths, without a slash at the beginning.
#[derive(Clone, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, Vec<u8>>,
    links: BTreeMap<String, String>,
}

impl Tree {
    pub(crate) fn with(mut self, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.to_owned(), bytes.into());
        self
    }

    pub(crate) fn with_link(mut self, path: &str, target: &str) -> Self {
        self.links.insert(path.to_owned(), target.to_owned());
        self
    }

    pub(crate) fn remove(&mut self, path: &str) {
        self.files.remove(path).expect("it is there");
    }

    fn write(&self, root: &Path) {
        for (path, bytes) in &self.files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        for (path, target) in &self.links {
            std::os::unix::fs::symlink(target, root.join(path)).unwrap();
        }
    }
}

/// A file system of ext with `tree`, made by e2fsprogs.
pub(crate) fn ext(kind: &str, length: usize, uuid: &str, block: usize, tree: &Tree) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    tree.write(directory.path());
    let image = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new("mke2fs");
    command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    command.args(["-q", "-F", "-t", kind, "-U", uuid, "-b", &block.to_string(), "-d"]);
    command.arg(directory.path()).arg(image.path()).arg(format!("{}k", length >> 10));
    let output = command.output().expect("mke2fs of Debian's package e2fsprogs is needed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(image.path()).unwrap()
}

/// The ext4 file system in `image`, of blocks of 1 KiB and 16 MiB, as after a reset: 600 KiB that
/// were written last are in its journal. They are zeros of blocks that nothing uses.
pub(crate) fn with_log(image: &[u8]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), image).unwrap();
    let mut commands = tempfile::NamedTempFile::new().unwrap();
    // Debugfs does not mark the last entry of a descriptor that is full: 62 have room.
    let writes =
        (0..10).map(|n| 15_000 + n * 60).map(|at| format!("journal_write -b {at}-{} /dev/zero\n", at + 59));
    let text = format!("journal_open -c\n{}journal_close\n", writes.collect::<String>());
    commands.write_all(text.as_bytes()).unwrap();
    let mut command = Command::new("debugfs");
    command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    let output = command.args(["-w", "-f"]).args([commands.path(), file.path()]).output();
    let output = output.expect("debugfs of Debian's package e2fsprogs is needed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(file.path()).unwrap()
}

/// A FAT file system with `tree`: FAT12 below 8 MiB, FAT32 from 64 MiB on, else FAT16.
pub(crate) fn fat(length: usize, id: u32, tree: &Tree) -> Vec<u8> {
    let mut image = std::io::Cursor::new(vec![0; length]);
    let kind = match length >> 20 {
        0..8 => fatfs::FatType::Fat12,
        8..64 => fatfs::FatType::Fat16,
        _ => fatfs::FatType::Fat32,
    };
    let cluster = if kind == fatfs::FatType::Fat12 { 4096 } else { 1024 };
    let options = fatfs::FormatVolumeOptions::new().fat_type(kind).bytes_per_cluster(cluster).volume_id(id);
    fatfs::format_volume(&mut image, options.volume_label(*b"ESP        ")).unwrap();
    image.seek(SeekFrom::Start(0)).unwrap();
    let files = fatfs::FileSystem::new(&mut image, fatfs::FsOptions::new()).unwrap();
    for (path, bytes) in &tree.files {
        for (at, _) in path.match_indices('/') {
            files.root_dir().create_dir(&path[..at]).unwrap();
        }
        files.root_dir().create_file(path).unwrap().write_all(bytes).unwrap();
    }
    drop(files);
    image.into_inner()
}

/// A disk.
pub(crate) struct Image(pub(crate) Vec<u8>);

impl Source for Image {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        let mut bytes = std::io::Cursor::new(&self.0);
        bytes.set_position(offset);
        bytes.read_exact(buffer)
    }
}

/// A disk that is looked at many times.
impl Source for Rc<Vec<u8>> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self[start..][..buffer.len()]);
        Ok(())
    }
}

const SECTOR: usize = 512;

impl Image {
    pub(crate) fn find(&self) -> Result<Boot, NothingFound> {
        find(Box::new(Self(self.0.clone())), self.0.len() as u64)
    }

    pub(crate) fn whole(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// A disk with a GPT: partitions by number, the EFI system partition marked.
    pub(crate) fn gpt(partitions: &[(usize, &Vec<u8>, bool)]) -> Self {
        let mut disk = vec![0; 1 << 20];
        let mut entries = vec![0; 128 * 128];
        for (number, bytes, efi) in partitions {
            let entry = &mut entries[(number - 1) * 128..][..128];
            let kind: [u8; 16] = if *efi {
                *b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b"
            } else {
                [1; 16]
            };
            entry[..16].copy_from_slice(&kind);
            entry[16..32].fill(u8::try_from(*number).unwrap());
            entry[32..40].copy_from_slice(&((disk.len() / SECTOR) as u64).to_le_bytes());
            disk.extend_from_slice(bytes);
            entry[40..48].copy_from_slice(&((disk.len() / SECTOR) as u64 - 1).to_le_bytes());
        }
        disk.resize(disk.len() + (1 << 20), 0);
        let last = disk.len() / SECTOR - 1;
        let sum = |bytes: &[u8]| crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(bytes);
        for (at, entries_at) in [(1, 2), (last, last - 32)] {
            let mut header = vec![0; 92];
            header[..16].copy_from_slice(b"EFI PART\0\0\x01\0\x5c\0\0\0");
            header[24..32].copy_from_slice(&(at as u64).to_le_bytes());
            header[72..80].copy_from_slice(&(entries_at as u64).to_le_bytes());
            header[80..84].copy_from_slice(&128u32.to_le_bytes());
            header[84..88].copy_from_slice(&128u32.to_le_bytes());
            header[88..92].copy_from_slice(&sum(&entries).to_le_bytes());
            let own = sum(&header);
            header[16..20].copy_from_slice(&own.to_le_bytes());
            disk[at * SECTOR..][..92].copy_from_slice(&header);
            disk[entries_at * SECTOR..][..entries.len()].copy_from_slice(&entries);
        }
        record(&mut disk, 0, &[(0, 0xee, 1, u32::MAX)]);
        Self(disk)
    }

    /// A disk with a master boot record: primary partitions by number, then logical ones in an
    /// extended one.
    pub(crate) fn mbr(primary: &[(usize, &Vec<u8>)], logical: &[&Vec<u8>]) -> Self {
        let sectors = |bytes: usize| u32::try_from(bytes / SECTOR).unwrap();
        let mut disk = vec![0; 1 << 20];
        let mut entries = Vec::new();
        for (number, bytes) in primary {
            entries.push((number - 1, 0x83, sectors(disk.len()), sectors(bytes.len())));
            disk.extend_from_slice(bytes);
        }
        let extended = disk.len();
        let mut chain = Vec::new();
        for bytes in logical {
            chain.push((disk.len(), sectors(bytes.len())));
            disk.resize(disk.len() + (1 << 20), 0);
            disk.extend_from_slice(bytes);
        }
        if !logical.is_empty() {
            entries.push((3, 0x05, sectors(extended), sectors(disk.len() - extended)));
        }
        record(&mut disk, 0, &entries);
        for (index, (at, count)) in chain.iter().enumerate() {
            let own = (0, 0x83, sectors(1 << 20), *count);
            let next = chain.get(index + 1).map(|(next, count)| (1, 0x05, sectors(next - extended), *count));
            record(&mut disk, *at, &[Some(own), next].into_iter().flatten().collect::<Vec<_>>());
        }
        Self(disk)
    }
}

/// Writes a boot record at `at`: entries of index, type, first sector and count.
fn record(disk: &mut [u8], at: usize, entries: &[(usize, u8, u32, u32)]) {
    for (index, kind, first, count) in entries {
        let entry = &mut disk[at + 446 + index * 16..][..16];
        entry[4] = *kind;
        entry[8..12].copy_from_slice(&first.to_le_bytes());
        entry[12..16].copy_from_slice(&count.to_le_bytes());
    }
    disk[at + 510..at + 512].copy_from_slice(&[0x55, 0xaa]);
}
