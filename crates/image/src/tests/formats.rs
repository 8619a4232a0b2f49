//! What headers and entries may say.

use super::*;
use crate::error::Error;
use crate::header::Header;
use crate::storage::Storage;

/// The image with `bytes` at `at`.
fn with(at: u64, bytes: &[u8]) -> Memory {
    let storage = made(None);
    storage.write_at(bytes, at).unwrap();
    storage
}

fn refused(storage: &Memory) -> String {
    let refused = Qcow2::open(storage.clone(), true, None).err();
    refused.map_or_else(|| "opened".to_owned(), |error| error.to_string())
}

#[test]
fn what_is_not_supported_or_damaged_is_refused_and_named() {
    assert_eq!(refused(&made(None)), "opened");
    for (at, bytes, part) in [
        (0, &b"QFI\xfc"[..], "no qcow2 image"),
        (4, &[0, 0, 0, 4], "version 4"),
        (20, &[0, 0, 0, 40], "clusters of 2^40 bytes"),
        (20, &[0, 0, 0, 8], "clusters of 2^8 bytes"),
        (24, &[0x7f, 0, 0, 0], "too many tables"),
        (24, &[0, 0, 0, 0, 0x10], "a table of"),
        (32, &[0, 0, 0, 1], "encryption"),
        (36, &[0xff, 0, 0, 0], "too many tables"),
        (40, &[0, 0, 0, 0, 0, 0, 0, 1], "a table at"),
        (40, &[0; 8], "a table at 0x0"),
        (48, &[0; 8], "a table at 0x0"),
        (48, &[0x10, 0], "a table at"),
        (56, &[0xff, 0, 0, 0], "reference counts"),
        (60, &[0, 0, 0, 1], "snapshots"),
        (72, &[0, 0, 0, 0, 0, 0, 0, 1], "not closed cleanly"),
        (72, &[0, 0, 0, 0, 0, 0, 0, 2], "marked as damaged"),
        (72, &[0, 0, 0, 0, 0, 0, 0, 4], "external data"),
        (72, &[0, 0, 0, 0, 0, 0, 0, 16], "extended L2"),
        (72, &[0, 0, 0, 0, 0, 0, 0, 64], "features 0x40"),
        (96, &[0, 0, 0, 7], "2^7 bits"),
        (96, &[0, 0, 0, 2], "only read"),
        (100, &[0, 0, 0, 90], "a header of 90 bytes"),
        (104, &[0xff, 0, 0, 0, 0xff], "an extension of"),
        (16, &[0, 0, 4, 0], "opened"),
        (8, &[0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 4, 0], "a backing file's name"),
        (8192, &[0; 2], "not counted once"),
        (8192, &[0, 2], "not counted once"),
    ] {
        let refused = refused(&with(at, bytes));
        assert!(refused.contains(part), "{at} {bytes:?}: {part}: {refused}");
        assert_eq!(refused.lines().count(), 1, "{refused}");
    }
}

#[test]
fn images_that_only_may_be_read_are_read() {
    for (at, bytes) in [(60, [0, 0, 0, 1]), (76, [0, 0, 0, 1]), (96, [0, 0, 0, 2])] {
        let image = Qcow2::open(with(at, &bytes), false, None).unwrap();
        let mut read = [1; 512];
        image.read(&mut read, SIZE - 512).unwrap();
        assert_eq!(read, [0; 512]);
        assert!(
            image.write(&read, 0).is_err()
                && image.zero(0, 512, true).is_err()
                && image.discard(0, 4096).is_err()
        );
    }
}

#[test]
fn bitmaps_that_would_be_out_of_date_are_marked_so() {
    let storage = with(95, &[1]);
    drop(Qcow2::open(storage.clone(), false, None).unwrap());
    assert_eq!(storage.content()[95], 1);
    drop(Qcow2::open(storage.clone(), true, None).unwrap());
    assert_eq!(storage.content()[95], 0);
}

#[test]
fn what_lies_beyond_the_disk_is_refused() {
    let image = opened(&made(None), None);
    for (offset, length) in [(SIZE, 512), (SIZE - 512, 1024), (u64::MAX, 512), (u64::MAX - 511, 512)] {
        assert!(image.read(&mut vec![0; length], offset).is_err());
        assert!(image.write(&vec![0; length], offset).is_err());
        assert!(image.discard(offset, length as u64).is_err());
        assert!(image.zero(offset, length as u64, true).is_err());
    }
}

#[test]
fn a_header_is_read_back_as_it_was_made() {
    let backing = Backing { name: "x".repeat(1023), format: Some(Format::Qcow2) };
    let storage = Memory::default();
    create(&storage, 20 << 30, 64 << 10, Some(&backing)).unwrap();
    let header = Header::read(&storage).unwrap();
    assert_eq!((header.size, header.cluster(), header.version), (20 << 30, 64 << 10, 3));
    assert_eq!(header.backing, Some(backing));
    for (size, cluster) in
        [(0, 65536), (513, 65536), (1 << 50, 65536), (1 << 30, 5000), (8 << 40, 4096), (1 << 30, 512)]
    {
        assert!(
            matches!(create(&Memory::default(), size, cluster, None), Err(Error::Invalid(_))),
            "{size} {cluster}"
        );
    }
    for cluster in [4096, 65536, 2 << 20] {
        let storage = Memory::default();
        create(&storage, 1 << 30, cluster, None).unwrap();
        assert_eq!(refused(&storage), "opened", "{cluster}");
    }
    create(&Memory::default(), 8 << 40, 65536, None).unwrap();
}

#[test]
fn a_header_that_does_not_fit_its_cluster_is_not_written() {
    let made = |length| {
        let backing = Backing { name: "x".repeat(length), format: Some(Format::Raw) };
        let storage = Memory::default();
        create(&storage, SIZE, 512, Some(&backing)).map(|()| (backing, storage))
    };
    // 104 bytes of header, 16 for the format, 8 for the end of the extensions.
    let (backing, storage) = made(512 - 128).unwrap();
    let header = Header::read(&storage).unwrap();
    assert_eq!((header.backing, storage.content()[512]), (Some(backing), 0), "the table of counts is whole");
    let refused = made(512 - 127).unwrap_err().to_string();
    assert!(refused.contains("does not fit a cluster of 512 bytes"), "{refused}");
}
