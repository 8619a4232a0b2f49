//! Clusters that are compressed.

use miniz_oxide::deflate::compress_to_vec;
use plimsoll_sys::lock;
use ruzstd::encoding::{CompressionLevel, compress_to_vec as compress_zstd};

use super::*;
use crate::check::{Findings, check};
use crate::compressed::Compression;
use crate::storage::Storage;

#[test]
fn what_a_cluster_begins_with_counts_and_less_is_an_error() {
    let cluster: Vec<u8> = (0..=250).cycle().take(4096).collect();
    let zstd = compress_zstd(&cluster[..], CompressionLevel::Fastest);
    for (compression, compressed) in
        [(Compression::Zlib, compress_to_vec(&cluster, 6)), (Compression::Zstd, zstd)]
    {
        let mut read = vec![0; 4096];
        let padded = [&compressed[..], &[0xaa; 600]].concat();
        compression.decompress(&padded, &mut read).unwrap();
        assert!(read == cluster);
        let mut longer = vec![0; 4097];
        assert!(compression.decompress(&compressed, &mut longer).is_err());
        assert!(compression.decompress(&compressed[..compressed.len() / 2], &mut read).is_err());
        assert!(compression.decompress(&[0xff; 600], &mut read).is_err());
        assert!(compression.decompress(&[], &mut read).is_err());
    }
}

#[test]
fn a_compressed_cluster_is_read_and_gives_way_to_what_is_written() {
    let storage = made(None);
    let image = opened(&storage, None);
    let old: Vec<u8> = (0..=250).cycle().take(4096).collect();
    let (at, _) = lock(&image.metadata).allocate(&storage).unwrap();
    storage.write_at(&compress_to_vec(&old, 6), at + 100).unwrap();
    // In clusters of 4 KiB, 4 bits are for the length in units less one.
    let entry = 1 << 62 | 1 << 58 | (at + 100);
    lock(&image.metadata).map(&storage, 5, entry).unwrap();
    image.flush().unwrap();
    let mut read = vec![0; 4096];
    image.read(&mut read, 5 * CLUSTER).unwrap();
    assert!(read == old);
    image.write(&[9; 512], 5 * CLUSTER + 512).unwrap();
    image.flush().unwrap();
    image.read(&mut read, 5 * CLUSTER).unwrap();
    assert!(read[..512] == old[..512] && read[512..1024] == [9; 512] && read[1024..] == old[1024..]);
    assert_eq!(check(&storage).unwrap(), Findings::default(), "its cluster is free");
}
