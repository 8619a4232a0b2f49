//! Images whose tables would give a guest the image's own header.

use std::io;

use plimsoll_sys::lock;

use super::*;
use crate::entry::{COPIED, ZERO};

/// Whatever a guest does with a cluster.
fn uses(image: &Qcow2<Memory>, cluster: u64) -> Vec<io::Result<()>> {
    let at = cluster * CLUSTER;
    vec![
        image.read(&mut [0; 512], at),
        image.write(&[9; 512], at + 512),
        image.write(&[9; 4096], at),
        image.zero(at, CLUSTER, true),
        image.zero(at, CLUSTER, false),
        image.zero(at, 512, false),
        image.discard(at, CLUSTER),
    ]
}

#[test]
fn header_and_tables_are_no_clusters_of_the_disk() {
    let storage = made(None);
    let image = opened(&storage, None);
    let header = image.header();
    let (l1, counts) = (header.l1_at, header.refcounts_at);
    let entries = [
        l1 | COPIED,
        l1,
        l1 | COPIED | ZERO,
        counts | COPIED,
        // Compressed, in the header, and from there on.
        1 << 62,
        1 << 62 | 8 << 58 | (counts - 512),
    ];
    for (cluster, entry) in (5..).zip(entries) {
        let before = storage.content();
        lock(&image.metadata).map(&storage, cluster, entry).unwrap();
        for (number, done) in uses(&image, cluster).into_iter().enumerate() {
            let why = done.unwrap_err();
            assert_eq!(why.kind(), io::ErrorKind::InvalidData, "{entry:#x} {number}: {why}");
        }
        image.flush().unwrap();
        let tables = ..usize::try_from(counts + CLUSTER).unwrap();
        assert!(before[tables] == storage.content()[tables], "{entry:#x}: header or counts have changed");
    }
}

#[test]
fn a_header_that_counts_as_free_is_not_given_out() {
    let storage = made(None);
    let image = opened(&storage, None);
    let header = storage.content()[..4096].to_vec();
    lock(&image.metadata).give_back(&storage, 0).unwrap();
    assert_eq!(image.write(&[9; 4096], 0).unwrap_err().kind(), io::ErrorKind::InvalidData);
    image.write(&[9; 4096], 0).unwrap();
    image.flush().unwrap();
    assert!(storage.content()[..4096] == header);
}
