//! Reference counts of the file's clusters, and which of them are free.

use std::collections::BTreeSet;
use std::io;

use crate::cache::{Cache, index};
use crate::entry::OFFSET;
use crate::error::{Error, damaged};
use crate::header::Header;
use crate::storage::Storage;

/// Pieces of blocks of counts in memory: each has the counts of 128 MiB with clusters of 64 KiB.
const CACHED: usize = 24;

/// The counts. A table of the file names the blocks that they are in.
#[derive(Debug)]
pub(crate) struct Refcounts {
    table: Vec<u64>,
    /// Entries of the table that are not on disk yet.
    unwritten: BTreeSet<usize>,
    at: u64,
    pub(crate) blocks: Cache,
    cluster_bits: u32,
    /// Bytes of a count: 1, 2, 4 or 8.
    width: u64,
    /// No cluster below is free.
    lowest: u64,
}

impl Refcounts {
    /// Those of the image in `storage`, to change them.
    ///
    /// # Errors
    /// They cannot be read, are of a width that is not written, or too few for the image.
    pub(crate) fn read(storage: &impl Storage, header: &Header) -> Result<Self, Error> {
        if header.refcount_order < 3 {
            return Err(Error::ReadOnly(format!(
                "its reference counts have {} bits, and images with less than 8 are only read",
                1 << header.refcount_order
            )));
        }
        let table = read_table(storage, header.refcounts_at, header.refcount_entries())?;
        let counts = Self {
            table,
            unwritten: BTreeSet::new(),
            at: header.refcounts_at,
            blocks: Cache::new(CACHED, header.cluster()),
            cluster_bits: header.cluster_bits,
            width: 1 << (header.refcount_order - 3),
            lowest: 0,
        };
        counts.must_reach(header.size)?;
        Ok(counts)
    }

    /// Checks that a disk of `size` bytes can be written wholly.
    ///
    /// # Errors
    /// The table is too short for it.
    pub(crate) fn must_reach(&self, size: u64) -> Result<(), Error> {
        // What a full disk takes, with a tenth more for tables and what is left over of crashes.
        let most = size.div_ceil(1 << self.cluster_bits);
        if self.table.len() as u64 * self.in_block() >= most + most / 10 + 64 {
            return Ok(());
        }
        let text = "its table of reference counts is too short to write all of the disk: convert it with plimsoll \
                    image convert";
        Err(Error::ReadOnly(text.to_owned()))
    }

    /// Counts in a block.
    fn in_block(&self) -> u64 {
        (1 << self.cluster_bits) / self.width
    }

    /// Where in the file the count of `cluster` is; `None` if it has no count, and is free.
    fn place(&self, cluster: u64) -> io::Result<Option<u64>> {
        let block = usize::try_from(cluster / self.in_block()).ok().and_then(|block| self.table.get(block));
        let block = block.ok_or_else(|| damaged(format!("there is no count of cluster {cluster}")))? & OFFSET;
        if !block.is_multiple_of(1 << self.cluster_bits) {
            return Err(damaged(format!("a block of reference counts at {block:#x}")));
        }
        Ok((block != 0).then_some(block + cluster % self.in_block() * self.width))
    }

    /// The number of references to `cluster`.
    ///
    /// # Errors
    /// The table does not reach so far, or cannot be read.
    pub(crate) fn get(&mut self, storage: &impl Storage, cluster: u64) -> io::Result<u64> {
        let Some(at) = self.place(cluster)? else { return Ok(0) };
        Ok(number(self.blocks.read(storage, at)?, self.width))
    }

    fn set(&mut self, storage: &impl Storage, cluster: u64, count: u64) -> io::Result<()> {
        let at = self.place(cluster)?.ok_or_else(|| damaged(format!("cluster {cluster} is not counted")))?;
        let bytes = count.to_be_bytes();
        self.blocks.write(storage, at, &bytes[8 - index(self.width)..])
    }

    /// Takes a free cluster, which then has one reference.
    ///
    /// # Errors
    /// No cluster is free, or the counts cannot be read.
    pub(crate) fn allocate(&mut self, storage: &impl Storage) -> io::Result<u64> {
        loop {
            let cluster = self.lowest;
            let block = index(cluster / self.in_block());
            if block >= self.table.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let Some(at) = self.place(cluster)? else {
                self.add_block(storage, block, cluster)?;
                continue;
            };
            let width = self.width;
            let counts = self.blocks.read(storage, at)?.chunks_exact(index(width));
            let scanned = counts.len() as u64;
            match counts.map(|count| number(count, width)).position(|count| count == 0) {
                Some(free) => {
                    let free = cluster + free as u64;
                    self.set(storage, free, 1)?;
                    self.lowest = free + 1;
                    return Ok(free);
                }
                None => self.lowest = cluster + scanned,
            }
        }
    }

    /// Adds entry `block` of the table. The block is in `cluster`, which it counts itself: none of
    /// its clusters was in use.
    fn add_block(&mut self, storage: &impl Storage, block: usize, cluster: u64) -> io::Result<()> {
        let at = cluster << self.cluster_bits;
        let mut counts = vec![0; 1 << self.cluster_bits];
        // The last byte of its own count. It is there before anything refers to the block, or the
        // block could be given out as data after a failure.
        counts[index((cluster % self.in_block() + 1) * self.width) - 1] = 1;
        storage.write_at(&counts, at)?;
        self.table[block] = at;
        self.unwritten.insert(block);
        self.lowest = cluster + 1;
        Ok(())
    }

    /// Takes back one reference to `cluster`. Returns whether it is free now.
    ///
    /// # Errors
    /// The cluster had no count, or the counts cannot be read.
    pub(crate) fn release(&mut self, storage: &impl Storage, cluster: u64) -> io::Result<bool> {
        let count = self.get(storage, cluster)?;
        let left =
            count.checked_sub(1).ok_or_else(|| damaged(format!("cluster {cluster} is free already")))?;
        self.set(storage, cluster, left)?;
        if left == 0 {
            self.lowest = self.lowest.min(cluster);
        }
        Ok(left == 0)
    }

    /// Whether the table has entries that are not on disk.
    pub(crate) fn has_new_blocks(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Writes new entries of the table. What they refer to is durable.
    ///
    /// # Errors
    /// They cannot be written, and stay.
    pub(crate) fn write_table(&mut self, storage: &impl Storage) -> io::Result<()> {
        write_entries(storage, &self.table, self.at, &mut self.unwritten)
    }
}

/// The big-endian number of `width` bytes that `bytes` begin with.
fn number(bytes: &[u8], width: u64) -> u64 {
    bytes[..index(width)].iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// The `count` entries of a table at `at`.
pub(crate) fn read_table(storage: &impl Storage, at: u64, count: u64) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; index(count * 8)];
    storage.read_at(&mut bytes, at)?;
    Ok(bytes.chunks_exact(8).map(|entry| number(entry, 8)).collect())
}

/// Writes the entries of `table`, which is at `at`, that are named by `unwritten`.
pub(crate) fn write_entries(
    storage: &impl Storage,
    table: &[u64],
    at: u64,
    unwritten: &mut BTreeSet<usize>,
) -> io::Result<()> {
    while let Some(entry) = unwritten.first().copied() {
        storage.write_at(&table[entry].to_be_bytes(), at + 8 * entry as u64)?;
        unwritten.remove(&entry);
    }
    Ok(())
}
