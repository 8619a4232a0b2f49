//! Storage that fails once, and is used on.

use super::*;
use crate::check::{Findings, check};
use crate::memory::Fault;

fn all(byte: u8) -> Vec<u8> {
    vec![byte; usize::try_from(SIZE).unwrap()]
}

fn content(image: &Qcow2<Memory>) -> Vec<u8> {
    let mut content = all(0xee);
    image.read(&mut content, 0).unwrap();
    content
}

#[test]
fn what_a_sync_has_lost_is_not_told_to_be_durable() {
    let storage = made(None);
    let image = opened(&storage, None);
    image.write(&all(7), 0).unwrap();
    storage.fail_once(Fault::CachedSync, 0);
    image.flush().unwrap_err();
    image.flush().unwrap_err();
    image.write(&all(8), 0).unwrap();
    image.flush().unwrap_err();
    storage.cut_power(|_| true);
    assert_eq!(check(&storage).unwrap().errors, Vec::<String>::new());
}

#[test]
fn a_sync_that_has_lost_nothing_is_made_up_for_by_the_next() {
    for left in 0..3 {
        let storage = made_with(512, None);
        let image = opened(&storage, None);
        image.write(&all(7), 0).unwrap();
        storage.fail_once(Fault::Sync, left);
        while image.flush().is_err() {}
        assert!(!storage.has_faults(), "a flush of new tables of both kinds takes three syncs");
        storage.cut_power(|_| false);
        assert!(content(&opened(&storage, None)) == all(7));
        assert_eq!(check(&storage).unwrap(), Findings::default());
    }
}

#[test]
fn space_that_is_not_given_back_fails_no_flush() {
    let storage = made(None);
    let image = opened(&storage, None);
    image.write(&all(7), 0).unwrap();
    image.flush().unwrap();
    image.discard(0, SIZE).unwrap();
    storage.fail_once(Fault::Free, 0);
    image.flush().unwrap();
    assert!(!storage.has_faults(), "it was asked to give back");
    assert!(content(&image) == all(0));
    image.write(&all(8), 0).unwrap();
    image.flush().unwrap();
    assert!(content(&image) == all(8));
    assert_eq!(check(&storage).unwrap(), Findings::default());
}

#[test]
fn a_raw_image_that_gives_nothing_back_is_zeroed_all_the_same() {
    let storage = Memory::new(all(7));
    let image = Image::Raw(Raw::new(storage.clone()).unwrap());
    storage.fail_once(Fault::Free, 0);
    image.discard(0, 4096).unwrap();
    storage.fail_once(Fault::Free, 0);
    image.zero(4096, 4096, true).unwrap();
    assert!(storage.content()[..4096] == [7; 4096] && storage.content()[4096..8192] == [0; 4096]);
}

/// The block of a new table of counts among them: were it not counted, it would be given out as
/// data.
#[test]
fn no_read_is_a_bad_one_to_fail() {
    for left in 0.. {
        let storage = made_with(512, None);
        let image = opened(&storage, None);
        storage.fail_once(Fault::Read, left);
        let write = || image.write(&all(7), 0).and_then(|()| image.flush());
        write().or_else(|_| write()).unwrap();
        if storage.has_faults() {
            assert!(left > 5, "{left}");
            return;
        }
        assert!(content(&image) == all(7), "{left}");
        assert_eq!(check(&storage).unwrap().errors, Vec::<String>::new(), "{left}");
    }
}
