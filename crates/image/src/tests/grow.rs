//! Disks of images that grow.

use std::sync::Barrier;
use std::thread;

use super::*;
use crate::check::{Findings, check};
use crate::error::Error;

fn read(image: &Qcow2<Memory>, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; length];
    image.read(&mut bytes, offset).unwrap();
    bytes
}

#[test]
fn what_is_new_reads_as_zeros_and_is_written_like_all_else() {
    let base = Memory::new(vec![5; 8192]);
    for (cluster, backing) in [(512, None), (4096, None), (4096, Some(&base))] {
        let storage = made_with(cluster, backing);
        let image = opened(&storage, backing);
        image.write(&[7; 512], SIZE - 512).unwrap();
        // Within the same first-level entry, and beyond it.
        for grown in [SIZE + 512, 2 * SIZE, 1 << 20] {
            let before = image.size();
            image.grow(grown).unwrap();
            assert_eq!(image.size(), grown);
            let new = usize::try_from(grown - before).unwrap();
            assert!(read(&image, before, new).iter().all(|byte| *byte == 0), "{cluster} {grown}");
            assert_eq!(read(&image, SIZE - 512, 512), [7; 512]);
            image.write(&[9; 512], grown - 512).unwrap();
            assert!(image.write(&[9; 512], grown).is_err(), "beyond the end");
        }
        image.flush().unwrap();
        assert_eq!(check(&storage).unwrap(), Findings::default());
        let again = opened(&storage, backing);
        assert_eq!((again.size(), read(&again, (1 << 20) - 512, 512)), (1 << 20, vec![9; 512]));
    }
}

#[test]
fn a_disk_that_grows_while_its_end_is_zeroed_is_zero_there() {
    for round in 0..200 {
        let storage = made(None);
        let image = opened(&storage, None);
        image.write(&vec![7; usize::try_from(SIZE).unwrap()], 0).unwrap();
        let begin = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                begin.wait();
                (0..round * 10).for_each(|_| std::hint::spin_loop());
                image.grow(SIZE + 512).unwrap();
            });
            begin.wait();
            // From the middle of a cluster to the end of the disk, in the middle of another.
            image.zero(512, SIZE - 512, round % 2 == 0).unwrap();
        });
        let rest = read(&image, 512, usize::try_from(SIZE).unwrap());
        assert!(rest.iter().all(|byte| *byte == 0), "{round}");
        image.flush().unwrap();
        assert_eq!(check(&storage).unwrap(), Findings::default());
    }
}

#[test]
fn a_disk_does_not_shrink_nor_grow_beyond_what_its_tables_map() {
    let storage = made_with(512, None);
    let image = opened(&storage, None);
    let refused = |size| match image.grow(size) {
        Err(Error::Invalid(why) | Error::ReadOnly(why)) => why,
        other => panic!("{size}: {other:?}"),
    };
    assert!(refused(SIZE - 512).contains("cannot shrink"));
    assert!(refused(SIZE + 1).contains("multiple of 512"));
    assert!(refused(16 << 40).contains("up to 8TiB"));
    // A cluster of 512 bytes has 64 entries, each for 32 KiB.
    assert!(refused((64 * 32768) + 512).contains("has room for 2097152 bytes"));
    image.grow(SIZE).unwrap();
    assert_eq!(image.size(), SIZE);
    assert_eq!(check(&storage).unwrap(), Findings::default());
}

#[test]
fn a_backing_file_that_is_longer_would_show() {
    let base = Memory::new(vec![5; usize::try_from(SIZE).unwrap() + 4096]);
    let storage = made(Some(&base));
    assert!(opened(&storage, Some(&base)).grow(2 * SIZE).unwrap_err().to_string().contains("would show"));
}

#[test]
fn an_image_that_is_only_read_does_not_grow() {
    let storage = made(None);
    let image = Qcow2::open(storage, false, None).unwrap();
    assert!(image.grow(2 * SIZE).is_err());
}

#[test]
fn no_moment_is_a_bad_one_for_the_power_to_go() {
    for left in 0..100 {
        for stays in [false, true] {
            let storage = made_with(512, None);
            // Where the table will grow, the disk holds something else.
            let header = crate::header::Header::read(&storage).unwrap();
            let behind = header.l1_at + header.l1_entries * 8;
            crate::storage::Storage::write_at(&storage, &[0xff; 64], behind).unwrap();
            let image = opened(&storage, None);
            image.write(&[7; 512], 0).unwrap();
            image.flush().unwrap();
            storage.fail_after(left);
            let grown = image.grow(1 << 20).is_ok();
            storage.cut_power(|_| stays);
            let again = opened(&storage, None);
            assert!([SIZE, 1 << 20].contains(&again.size()), "{left} {stays}");
            assert!(!grown || again.size() == 1 << 20, "a grown disk stays so");
            assert_eq!(read(&again, 0, 512), [7; 512]);
            let rest = usize::try_from(again.size() - 512).unwrap();
            assert!(read(&again, 512, rest).iter().all(|byte| *byte == 0), "{left} {stays}");
            assert_eq!(check(&storage).unwrap().errors, Vec::<String>::new());
            if grown {
                assert!(left > 2, "{left} writes and syncs are not enough");
                return;
            }
        }
    }
    panic!("it never grows");
}
