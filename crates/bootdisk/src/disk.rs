use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

/// Unit in which a [`Source`] is read, in bytes: aligned for any storage's direct I/O, and long
/// enough that a kernel takes some hundred reads.
pub const BLOCK: usize = 64 << 10;
/// Blocks that are kept: tables, directories and what is read in order all find room.
const KEPT: usize = 16;
/// Least cost of a read in bytes. A chain that leads nowhere is followed by short reads.
const LEAST_COST: u64 = 64;

/// The content of a disk.
pub trait Source {
    /// Fills `buffer` with what lies at `offset`. Offset and length are multiples of [`BLOCK`],
    /// except that the disk's last block may be shorter.
    ///
    /// # Errors
    /// The bytes cannot be read, or are beyond the end.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Source for std::fs::File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

/// A disk that is read in blocks. Some blocks are kept in memory, and only a bounded amount is
/// read.
pub(crate) struct Disk {
    source: Box<dyn Source>,
    size: u64,
    /// The last one used comes first.
    kept: RefCell<VecDeque<(u64, Rc<[u8]>)>>,
    /// Bytes that may be read for one purpose.
    allowance: u64,
    left: Cell<u64>,
}

impl Disk {
    /// The disk in `source`, of which `allowance` bytes may be read for one purpose.
    pub(crate) fn new(source: Box<dyn Source>, size: u64, allowance: u64) -> Self {
        Self { source, size, kept: RefCell::default(), allowance, left: Cell::new(allowance) }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// What is read from now on is for another purpose.
    pub(crate) fn renew(&self) {
        self.left.set(self.allowance);
    }

    /// Allows to read `bytes` from now on, in place of what was left.
    pub(crate) fn allow(&self, bytes: u64) {
        self.left.set(bytes);
    }

    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let length = buffer.len() as u64;
        if offset.checked_add(length).is_none_or(|end| end > self.size) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the disk"));
        }
        let left = self.left.get().checked_sub(length.max(LEAST_COST));
        self.left.set(left.ok_or_else(|| io::Error::other("too much has to be read"))?);
        let mut at = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let block = self.block(at / BLOCK as u64)?;
            let skipped = usize::try_from(at % BLOCK as u64).map_err(io::Error::other)?;
            let count = rest.len().min(block.len() - skipped);
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(&block[skipped..skipped + count]);
            at += count as u64;
            rest = later;
        }
        Ok(())
    }

    /// Block `number`, which begins within the disk.
    fn block(&self, number: u64) -> io::Result<Rc<[u8]>> {
        let mut kept = self.kept.borrow_mut();
        if let Some(place) = kept.iter().position(|(known, _)| *known == number) {
            let found = kept.remove(place).expect("it was just found");
            let block = Rc::clone(&found.1);
            kept.push_front(found);
            return Ok(block);
        }
        let start = number * BLOCK as u64;
        let length = usize::try_from(self.size - start).unwrap_or(BLOCK).min(BLOCK);
        let mut block = vec![0; length];
        self.source.read_exact_at(&mut block, start)?;
        let block: Rc<[u8]> = block.into();
        kept.truncate(KEPT - 1);
        kept.push_front((number, Rc::clone(&block)));
        Ok(block)
    }
}

/// A part of a disk: a partition, or the whole.
#[derive(Clone)]
pub(crate) struct Window {
    disk: Rc<Disk>,
    start: u64,
    len: u64,
}

impl Window {
    /// `len` bytes from `start` on, which lie within `disk`.
    pub(crate) fn new(disk: &Rc<Disk>, start: u64, len: u64) -> Self {
        Self { disk: Rc::clone(disk), start, len }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// What is read from now on is for another purpose.
    pub(crate) fn renew(&self) {
        self.disk.renew();
    }

    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of its partition"));
        }
        self.disk.read(buffer, self.start + offset)
    }

    /// `N` bytes at `offset`.
    pub(crate) fn array<const N: usize>(&self, offset: u64) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(&mut bytes, offset)?;
        Ok(bytes)
    }
}

/// The little-endian number at `at`, which lies within `bytes`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// As [`u16_at`].
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

/// As [`u16_at`].
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn byte(at: usize) -> u8 {
        u8::try_from(at / 7 % 251).unwrap()
    }

    struct Counting(Vec<u8>, Rc<Cell<u32>>);

    impl Source for Counting {
        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            assert!(offset.is_multiple_of(BLOCK as u64), "{offset} is aligned");
            let start = usize::try_from(offset).unwrap();
            assert!(buffer.len() == BLOCK || start + buffer.len() == self.0.len(), "whole blocks");
            buffer.copy_from_slice(&self.0[start..start + buffer.len()]);
            self.1.set(self.1.get() + 1);
            Ok(())
        }
    }

    fn disk(length: usize) -> (Disk, Rc<Cell<u32>>) {
        let reads = Rc::new(Cell::new(0));
        let bytes = (0..length).map(byte).collect();
        (Disk::new(Box::new(Counting(bytes, Rc::clone(&reads))), length as u64, 1000), reads)
    }

    #[test]
    fn any_bytes_come_from_whole_blocks_and_known_ones_from_memory() {
        let (disk, reads) = disk(3 * BLOCK + 700);
        disk.allow(1 << 20);
        let mut buffer = vec![0; BLOCK + 10];
        let offset = 2 * BLOCK - 5;
        disk.read(&mut buffer, offset as u64).unwrap();
        assert!(buffer.iter().enumerate().all(|(n, found)| *found == byte(offset + n)));
        assert_eq!(reads.get(), 3);
        disk.read(&mut [0; 700], 3 * BLOCK as u64).unwrap();
        assert_eq!(reads.get(), 3);
    }

    #[test]
    fn nothing_beyond_the_end_and_no_more_than_allowed_is_read() {
        let (disk, _) = disk(1000);
        assert_eq!(disk.read(&mut [0; 2], 999).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(disk.read(&mut [0; 2], u64::MAX).is_err());
        let reads = (0..100).take_while(|_| disk.read(&mut [0; 1], 0).is_ok()).count();
        assert_eq!(reads, 1000 / 64);
        let disk = Rc::new(disk);
        disk.renew();
        let window = Window::new(&disk, 900, 50);
        assert!(window.read(&mut [0; 50], 0).is_ok());
        assert!(window.read(&mut [0; 50], 1).is_err());
    }
}
