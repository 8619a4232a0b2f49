//! Making qcow2 images.

use std::ops::RangeInclusive;

use crate::error::Error;
use crate::header::{Backing, LENGTH_3, MAGIC, MAX_ENTRIES, MAX_NAME, extension};
use crate::storage::Storage;

/// Cluster sizes that images are made with. Large disks need larger ones than the smallest.
const CLUSTERS: RangeInclusive<u64> = 512..=2 << 20;
/// What QEMU makes images with, too: a compromise between tables and what a small write copies.
pub const DEFAULT_CLUSTER: u64 = 64 << 10;
/// Largest disk. QEMU's own bound is far above.
pub const MAX_SIZE: u64 = 8 << 40;
/// Bytes of a reference count.
const COUNT: u64 = 2;

/// Writes an empty image of version 3 into `storage`, which is empty, and makes it durable: a disk
/// of `size` bytes in clusters of `cluster` bytes, a change of `backing`.
///
/// # Errors
/// A size or name out of bounds, or the kernel's.
pub fn create(
    storage: &impl Storage,
    size: u64,
    cluster: u64,
    backing: Option<&Backing>,
) -> Result<(), Error> {
    if !cluster.is_power_of_two() || !CLUSTERS.contains(&cluster) {
        return Err(Error::Invalid(format!(
            "clusters of {cluster} bytes: must be a power of two from 512 to 2MiB"
        )));
    }
    if size == 0 || !size.is_multiple_of(512) || size > MAX_SIZE {
        return Err(Error::Invalid(format!(
            "a disk of {size} bytes: must be a multiple of 512 bytes up to 8TiB"
        )));
    }
    let entries = cluster / 8;
    let l1_entries = size.div_ceil(cluster * entries);
    let in_block = cluster / COUNT;
    let l1_clusters = (l1_entries * 8).div_ceil(cluster);
    // Counts for the disk when it is full and its tables, and a quarter more: what a crash leaves
    // over counts as well.
    let most = size.div_ceil(cluster) + l1_entries + 64;
    let blocks = (most + most / 4).div_ceil(in_block);
    let table_clusters = blocks.div_ceil(entries);
    if l1_entries > MAX_ENTRIES || blocks > MAX_ENTRIES {
        return Err(Error::Invalid(format!(
            "a disk of {size} bytes needs larger clusters than {cluster} bytes"
        )));
    }
    // Header, table of counts, one block of counts, first-level table.
    let block = 1 + table_clusters;
    let l1 = block + 1;
    let used = l1 + l1_clusters;
    if used > in_block {
        return Err(Error::Invalid(format!(
            "a disk of {size} bytes needs larger clusters than {cluster} bytes"
        )));
    }
    let header = header(size, cluster, backing, l1 * cluster, l1_entries, table_clusters)?;
    if header.len() as u64 > cluster {
        return Err(Error::Invalid(format!(
            "the name of the backing file does not fit a cluster of {cluster} bytes: choose larger clusters"
        )));
    }
    let counts: Vec<u8> = (0..used).flat_map(|_| 1_u16.to_be_bytes()).collect();
    storage.write_at(&counts, block * cluster)?;
    storage.write_at(&(block * cluster).to_be_bytes(), cluster)?;
    // The image has whole clusters, as QEMU's have.
    storage.write_at(&[0], used * cluster - 1)?;
    storage.sync()?;
    // Last: before, it is no image.
    storage.write_at(&header, 0)?;
    storage.sync()?;
    Ok(())
}

fn header(
    size: u64,
    cluster: u64,
    backing: Option<&Backing>,
    l1_at: u64,
    l1_entries: u64,
    table_clusters: u64,
) -> Result<Vec<u8>, Error> {
    let format = backing.and_then(|backing| backing.format).map(|format| format.to_string());
    let name = backing.map(|backing| backing.name.as_str()).unwrap_or_default();
    if name.len() > MAX_NAME || name.chars().any(char::is_control) || (backing.is_some() && name.is_empty()) {
        return Err(Error::Invalid(format!(
            "the backing file {name:?}: its name is too long or not printable"
        )));
    }
    let mut extensions = Vec::new();
    if let Some(format) = &format {
        extensions.extend(extension::BACKING_FORMAT.to_be_bytes());
        extensions.extend(u32::try_from(format.len()).unwrap_or(0).to_be_bytes());
        extensions.extend(format.as_bytes());
        extensions.resize(extensions.len().next_multiple_of(8), 0);
    }
    extensions.extend([0; 8]);
    let name_at = if name.is_empty() { 0 } else { LENGTH_3 + extensions.len() as u64 };
    let narrow =
        |number: u64| u32::try_from(number).map_err(|_| Error::Invalid(format!("{number} is too large")));
    let mut header = MAGIC.to_vec();
    header.extend(3_u32.to_be_bytes());
    header.extend(name_at.to_be_bytes());
    header.extend(narrow(name.len() as u64)?.to_be_bytes());
    header.extend(cluster.ilog2().to_be_bytes());
    header.extend(size.to_be_bytes());
    header.extend(0_u32.to_be_bytes()); // encryption
    header.extend(narrow(l1_entries)?.to_be_bytes());
    header.extend(l1_at.to_be_bytes());
    header.extend(cluster.to_be_bytes()); // the table of counts is in cluster 1
    header.extend(narrow(table_clusters)?.to_be_bytes());
    header.extend([0; 4 + 8]); // snapshots
    header.extend([0; 3 * 8]); // features
    header.extend(4_u32.to_be_bytes()); // counts of 2^4 bits
    header.extend(narrow(LENGTH_3)?.to_be_bytes());
    header.extend(extensions);
    header.extend(name.as_bytes());
    Ok(header)
}
