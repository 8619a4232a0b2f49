//! The metadata of an image that is in use: where the guest's clusters are, and which clusters of
//! the file are in use.
//!
//! # The order of writes
//!
//! | before | is durable | because otherwise |
//! |---|---|---|
//! | an entry of the refcount table is written | the block that it names | counts would be what the disk held there |
//! | a mapping is written | the count of what it names, and the data | a cluster in use would count as free |
//! | a first-level entry is written | zeros in the second-level table that it names | mappings would be what the disk held there |
//! | the header names a longer first-level table | zeros in what it adds | mappings would be what the disk held there |
//! | a count is lowered | the mapping that no longer names the cluster | as for a mapping |
//!
//! [`Metadata::settle`] does this for all changes since the last time, with one to three syncs.
//! Between them, what is on disk is an older state of the image, with clusters that count as used
//! and are not.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

use crate::cache::{Cache, index};
use crate::entry::{COPIED, Mapping, OFFSET};
use crate::error::{Error, damaged};
use crate::header::Header;
use crate::refcounts::{Refcounts, read_table, write_entries};
use crate::storage::Storage;

/// Pieces of second-level tables in memory: each maps 32 MiB with clusters of 64 KiB.
const CACHED: usize = 64;
/// Clusters that wait to be freed. They are freed with the guest's next flush, or when there are
/// more.
const MAX_FREED: usize = 4096;

/// The metadata of one image.
#[derive(Debug)]
pub(crate) struct Metadata {
    version: u32,
    cluster_bits: u32,
    l1: Vec<u64>,
    l1_at: u64,
    /// First-level entries that are not on disk yet.
    unwritten: BTreeSet<usize>,
    tables: Cache,
    /// `None`: the image is only read.
    refcounts: Option<Refcounts>,
    /// References of mappings that were replaced, by cluster.
    freed: Vec<u64>,
    /// No cluster of the file from here on has been in use.
    fresh: u64,
    /// Clusters that are never data: header, first-level table and table of counts. What a guest
    /// wrote to them would choose its backing files and its disk's size.
    reserved: [Range<u64>; 3],
}

impl Metadata {
    /// The metadata of the image in `storage`.
    ///
    /// # Errors
    /// It cannot be read, or not be written and `writable` asks for that.
    pub(crate) fn read(storage: &impl Storage, header: &Header, writable: bool) -> Result<Self, Error> {
        let mut metadata = Self {
            version: header.version,
            cluster_bits: header.cluster_bits,
            l1: read_table(storage, header.l1_at, header.l1_entries)?,
            l1_at: header.l1_at,
            unwritten: BTreeSet::new(),
            tables: Cache::new(CACHED, header.cluster()),
            refcounts: None,
            freed: Vec::new(),
            fresh: storage.length()?.div_ceil(header.cluster()),
            reserved: [
                0..1,
                clusters(header, header.l1_at, header.l1_entries * 8),
                clusters(header, header.refcounts_at, header.refcounts_clusters * header.cluster()),
            ],
        };
        if writable {
            let mut refcounts = Refcounts::read(storage, header)?;
            metadata.check(storage, header, &mut refcounts)?;
            metadata.refcounts = Some(refcounts);
        }
        Ok(metadata)
    }

    /// Checks that all tables count as used, once, so that none of them is allocated again.
    fn check(&self, storage: &impl Storage, header: &Header, refcounts: &mut Refcounts) -> Result<(), Error> {
        let tables = self.l1.iter().map(|entry| entry & OFFSET).filter(|at| *at != 0);
        let tables = tables.map(|at| clusters(header, at, header.cluster()));
        for cluster in self.reserved.iter().cloned().chain(tables).flatten() {
            if refcounts.get(storage, cluster).map_err(|error| Error::Damaged(error.to_string()))? != 1 {
                return Err(Error::Damaged(format!("the table in cluster {cluster} is not counted once")));
            }
        }
        Ok(())
    }

    /// What `cluster` of the guest's disk is mapped to.
    ///
    /// # Errors
    /// The mapping is damaged, names what is never data, or cannot be read.
    pub(crate) fn mapping(&mut self, storage: &impl Storage, cluster: u64) -> io::Result<Mapping> {
        let Some(table) = self.table(cluster)? else { return Ok(Mapping::Unallocated) };
        let at = table + cluster % self.in_table() * 8;
        let entry = *self.tables.read(storage, at)?.first_chunk().expect("entries are aligned");
        let mapping = Mapping::of(u64::from_be_bytes(entry), self.version, self.cluster_bits)?;
        if mapping.clusters(self.cluster_bits).any(|named| self.is_reserved(named)) {
            return Err(damaged(format!(
                "cluster {cluster} of the disk is mapped to the image's own tables"
            )));
        }
        Ok(mapping)
    }

    fn is_reserved(&self, cluster: u64) -> bool {
        self.reserved.iter().any(|range| range.contains(&cluster))
    }

    /// Second-level entries in a table.
    fn in_table(&self) -> u64 {
        (1 << self.cluster_bits) / 8
    }

    /// Where the table is that maps `cluster` of the guest's disk.
    fn table(&self, cluster: u64) -> io::Result<Option<u64>> {
        let entry = usize::try_from(cluster / self.in_table()).ok().and_then(|entry| self.l1.get(entry));
        let at = entry.ok_or_else(|| damaged(format!("no table maps cluster {cluster}")))? & OFFSET;
        if !at.is_multiple_of(1 << self.cluster_bits) {
            return Err(damaged(format!("a second-level table at {at:#x}")));
        }
        Ok((at != 0).then_some(at))
    }

    /// Maps `cluster` of the guest's disk to what `entry` says. What it was mapped to is freed
    /// later.
    ///
    /// # Errors
    /// A table cannot be read, or none be allocated. The mapping is as before then.
    pub(crate) fn map(&mut self, storage: &impl Storage, cluster: u64, entry: u64) -> io::Result<()> {
        let before = self.mapping(storage, cluster)?;
        let table = match self.table(cluster)? {
            Some(table) => table,
            None => self.add_table(storage, cluster)?,
        };
        self.tables.write(storage, table + cluster % self.in_table() * 8, &entry.to_be_bytes())?;
        let after = Mapping::of(entry, self.version, self.cluster_bits)?.clusters(self.cluster_bits);
        let kept = |cluster: &u64| after.contains(cluster);
        self.freed.extend(before.clusters(self.cluster_bits).filter(|cluster| !kept(cluster)));
        Ok(())
    }

    fn add_table(&mut self, storage: &impl Storage, cluster: u64) -> io::Result<u64> {
        let (at, _) = self.allocate(storage)?;
        let zeroed = storage.write_at(&vec![0; 1 << self.cluster_bits], at);
        if let Err(error) = zeroed {
            self.give_back(storage, at)?;
            return Err(error);
        }
        let entry = index(cluster / self.in_table());
        self.l1[entry] = at | COPIED;
        self.unwritten.insert(entry);
        Ok(at)
    }

    /// Takes a free cluster of the file. Returns where it is, and whether it has never been in use,
    /// so that it reads as zeros.
    ///
    /// # Errors
    /// No cluster is free, or the counts are damaged or cannot be read.
    pub(crate) fn allocate(&mut self, storage: &impl Storage) -> io::Result<(u64, bool)> {
        let cluster = self.refcounts()?.allocate(storage)?;
        if self.is_reserved(cluster) {
            return Err(damaged(format!("the table in cluster {cluster} counted as free")));
        }
        let is_fresh = cluster >= self.fresh;
        self.fresh = self.fresh.max(cluster + 1);
        Ok((cluster << self.cluster_bits, is_fresh))
    }

    /// Takes back a cluster at `at` that no mapping has named since it was allocated.
    ///
    /// # Errors
    /// The counts cannot be read.
    pub(crate) fn give_back(&mut self, storage: &impl Storage, at: u64) -> io::Result<()> {
        let cluster = at >> self.cluster_bits;
        self.refcounts()?.release(storage, cluster).map(drop)
    }

    fn refcounts(&mut self) -> io::Result<&mut Refcounts> {
        self.refcounts.as_mut().ok_or_else(|| io::ErrorKind::ReadOnlyFilesystem.into())
    }

    /// Checks that the image may be written.
    ///
    /// # Errors
    /// It is only read.
    pub(crate) fn is_writable(&mut self) -> io::Result<()> {
        self.refcounts().map(drop)
    }

    /// Makes the first-level table long enough for a disk of `size` bytes, of which a second-level
    /// table maps `mapped`. Returns its entries; those that are new map nothing, which is durable.
    ///
    /// # Errors
    /// The clusters of the table have no room, the counts do not reach so far, or the kernel's.
    pub(crate) fn lengthen(&mut self, storage: &impl Storage, size: u64, mapped: u64) -> Result<u32, Error> {
        self.refcounts()?.must_reach(size)?;
        let (before, needed) = (self.l1.len(), index(size.div_ceil(mapped)));
        let room = (before * 8).next_multiple_of(1 << self.cluster_bits) / 8;
        if needed > room {
            let most = room as u64 * mapped;
            return Err(Error::Invalid(format!(
                "its first-level table has room for {most} bytes: convert it with plimsoll image convert"
            )));
        }
        if needed > before {
            storage.write_at(&vec![0; (needed - before) * 8], self.l1_at + before as u64 * 8)?;
            storage.sync()?;
            self.l1.resize(needed, 0);
        }
        u32::try_from(self.l1.len()).map_err(|_| damaged("too many tables").into())
    }

    /// Whether its caches are within their bounds.
    #[cfg(test)]
    pub(crate) fn is_bounded(&self) -> bool {
        self.tables.is_bounded() && self.refcounts.as_ref().is_none_or(|counts| counts.blocks.is_bounded())
    }

    /// Makes room for one more change of a mapping.
    ///
    /// # Errors
    /// As for [`settle`](Self::settle).
    pub(crate) fn make_room(&mut self, storage: &impl Storage) -> io::Result<()> {
        let has_room = self.refcounts()?.blocks.has_room() && self.tables.has_room();
        if has_room && self.freed.len() < MAX_FREED { Ok(()) } else { self.settle(storage) }
    }

    /// Makes durable what was written, and all changes of the metadata; then frees clusters.
    ///
    /// # Errors
    /// The kernel's; what is not on disk stays in memory.
    pub(crate) fn settle(&mut self, storage: &impl Storage) -> io::Result<()> {
        let Some(refcounts) = &mut self.refcounts else { return Ok(()) };
        refcounts.blocks.write_back(storage)?;
        if refcounts.has_new_blocks() {
            storage.sync()?;
            refcounts.write_table(storage)?;
        }
        if self.tables.is_dirty() || !self.unwritten.is_empty() {
            storage.sync()?;
            self.tables.write_back(storage)?;
        }
        // A new table holds zeros since the last sync, so it need not hold its mappings yet.
        write_entries(storage, &self.l1, self.l1_at, &mut self.unwritten)?;
        storage.sync()?;
        while let Some(cluster) = self.freed.pop() {
            if !refcounts.blocks.has_room() {
                refcounts.blocks.write_back(storage)?;
            }
            if refcounts.release(storage, cluster)? {
                // Where that fails the cluster keeps its space until it is used again: no reason to
                // fail a flush, whose data is durable by now.
                storage.free(cluster << self.cluster_bits, 1 << self.cluster_bits).ok();
            }
        }
        // Not durable, and need not be: until they are, the clusters only count as used.
        refcounts.blocks.write_back(storage)
    }
}

/// The clusters of the file that `bytes` from `at` on lie in.
fn clusters(header: &Header, at: u64, bytes: u64) -> Range<u64> {
    (at >> header.cluster_bits)..(at + bytes).div_ceil(header.cluster())
}
