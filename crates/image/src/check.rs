//! Whether an image's metadata agrees with itself, as `qemu-img check` sees it: for tests.

use std::collections::BTreeMap;
use std::io;

use crate::entry::{COPIED, Mapping, OFFSET};
use crate::header::Header;
use crate::refcounts::{Refcounts, read_table};
use crate::storage::Storage;

/// What is wrong with an image.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Clusters that are used more often than they count, and mappings that say that they own what
    /// others use too.
    pub(crate) errors: Vec<String>,
    /// Clusters that count as used more often than they are.
    pub(crate) leaked: u64,
}

/// Looks at the image in `storage`.
///
/// # Errors
/// It cannot be read at all.
pub(crate) fn check(storage: &impl Storage) -> io::Result<Findings> {
    let header = Header::read(storage).map_err(io::Error::other)?;
    let mut findings = Findings::default();
    let mut used: BTreeMap<u64, u64> = BTreeMap::new();
    let mut owned = Vec::new();
    let cluster = header.cluster();
    let mut refer = |at: u64, bytes: u64| {
        for number in at / cluster..(at + bytes).div_ceil(cluster) {
            *used.entry(number).or_default() += 1;
        }
    };
    refer(0, 1);
    refer(header.l1_at, header.l1_entries * 8);
    refer(header.refcounts_at, header.refcounts_clusters * cluster);
    let blocks = read_table(storage, header.refcounts_at, header.refcount_entries())?;
    for block in blocks.iter().filter(|block| **block != 0) {
        refer(*block, cluster);
    }
    for table in read_table(storage, header.l1_at, header.l1_entries)?.into_iter().filter(|entry| *entry != 0)
    {
        refer(table & OFFSET, cluster);
        if table & COPIED != 0 {
            owned.push((table & OFFSET) / cluster);
        }
        for entry in read_table(storage, table & OFFSET, cluster / 8)? {
            let mapping = match Mapping::of(entry, header.version, header.cluster_bits) {
                Ok(mapping) => mapping,
                Err(error) => {
                    findings.errors.push(error.to_string());
                    continue;
                }
            };
            for number in mapping.clusters(header.cluster_bits) {
                refer(number * cluster, 1);
            }
            if let Mapping::Data(place) | Mapping::Zero(Some(place)) = mapping
                && place.owned
            {
                owned.push(place.at / cluster);
            }
        }
    }
    let mut counts = Refcounts::read(storage, &header).map_err(io::Error::other)?;
    let last = used.keys().next_back().copied().unwrap_or_default();
    for number in 0..=last.max(storage.length()? / cluster) {
        let (count, uses) = (counts.get(storage, number)?, used.get(&number).copied().unwrap_or_default());
        if count < uses {
            findings.errors.push(format!("cluster {number} counts {count} and is used {uses} times"));
        }
        findings.leaked += u64::from(count > uses);
    }
    for number in owned {
        if counts.get(storage, number)? != 1 {
            findings.errors.push(format!("cluster {number} is owned and does not count 1"));
        }
    }
    Ok(findings)
}
