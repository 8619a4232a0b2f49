//! Any course of writes, discards, zeros and flushes, with ends of the process and of the power in
//! between, leaves what a disk may hold, and metadata that agrees with itself.

use std::collections::BTreeSet;
use std::io;

use plimsoll_sys::lock;
use proptest::prelude::*;

use super::*;
use crate::check::{Findings, check};
use crate::memory::Fault;

const SECTOR: u64 = 512;

#[derive(Clone, Copy, Debug)]
enum Ask {
    Write(u8),
    Zero {
        unmap: bool,
    },
    Discard,
    Flush,
    /// Closed cleanly.
    Reopen,
    /// The process ends: what was written is there.
    Kill,
    /// Any part of what was not durable is gone.
    CutPower(u64),
    /// Number of writes and syncs after which the power goes.
    FailAfter(u16),
    /// One of these fails after so many more, and the image is used on.
    FailOnce(Fault, u16),
}

/// What each sector may hold: the byte that fills it.
struct Model {
    now: Vec<BTreeSet<u8>>,
    /// After a crash.
    crashed: Vec<BTreeSet<u8>>,
}

impl Model {
    fn new(content: &[u8]) -> Self {
        let now: Vec<_> = content.chunks(512).map(|sector| BTreeSet::from([sector[0]])).collect();
        Self { crashed: now.clone(), now }
    }

    fn write(&mut self, from: usize, count: usize, byte: u8) {
        for sector in from..from + count {
            self.now[sector] = BTreeSet::from([byte]);
            self.crashed[sector].insert(byte);
        }
    }

    /// A change of these sectors has failed: each may be as `before`, too.
    fn has_failed(&mut self, before: &[BTreeSet<u8>], from: usize, count: usize) {
        let changed = self.now.iter_mut().zip(before).skip(from).take(count);
        changed.for_each(|(now, before)| now.extend(before));
    }

    fn discard(&mut self, from: usize, count: usize) {
        for sector in from..from + count {
            self.now[sector].insert(0);
            self.crashed[sector].insert(0);
        }
    }

    /// The disk holds `content`; `durable` if nothing of it can be lost any more.
    fn is(&mut self, content: &[u8], durable: bool) {
        for (sector, bytes) in content.chunks(512).enumerate() {
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "sector {sector} is torn");
            let allowed = &self.now[sector];
            assert!(allowed.contains(&bytes[0]), "sector {sector} holds {} and not {allowed:?}", bytes[0]);
            self.now[sector] = BTreeSet::from([bytes[0]]);
            if durable {
                self.crashed[sector] = BTreeSet::from([bytes[0]]);
            }
        }
    }
}

fn content(image: &Qcow2<Memory>) -> Vec<u8> {
    image.storage.heal();
    let mut content = vec![0xee; usize::try_from(SIZE).unwrap()];
    image.read(&mut content, 0).unwrap();
    content
}

fn asks() -> impl Strategy<Value = Vec<(u64, u64, Ask)>> {
    let fault =
        prop::sample::select(&[Fault::Read, Fault::Write, Fault::Sync, Fault::CachedSync, Fault::Free][..]);
    let ask = prop_oneof![
        8 => (1..=255_u8).prop_map(Ask::Write),
        2 => any::<bool>().prop_map(|unmap| Ask::Zero { unmap }),
        2 => Just(Ask::Discard),
        2 => Just(Ask::Flush),
        1 => Just(Ask::Reopen),
        1 => Just(Ask::Kill),
        1 => any::<u64>().prop_map(Ask::CutPower),
        2 => (0..40_u16).prop_map(Ask::FailAfter),
        2 => (fault, 0..20_u16).prop_map(|(fault, left)| Ask::FailOnce(fault, left)),
    ];
    prop::collection::vec((0..SIZE / SECTOR, prop_oneof![1..4_u64, 1..80_u64], ask), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_course_leaves_what_a_disk_may_hold(
        with_backing: bool,
        cluster in prop::sample::select(&[512_u64, 1024, 4096][..]),
        asks in asks(),
    ) {
        let base = Memory::new((0..u8::try_from(SIZE / SECTOR / 2).unwrap()).flat_map(|sector| [sector; 512]).collect());
        let base = with_backing.then_some(base);
        let storage = made_with(cluster, base.as_ref());
        let mut image = opened(&storage, base.as_ref());
        let mut model = Model::new(&content(&image));
        let mut has_crashed = false;
        for (sector, count, ask) in asks {
            let count = count.min(SIZE / SECTOR - sector);
            let (from, sectors) = (usize::try_from(sector).unwrap(), usize::try_from(count).unwrap());
            let (offset, length) = (sector * SECTOR, count * SECTOR);
            let bytes = |byte| vec![byte; usize::try_from(length).unwrap()];
            let before = model.now.clone();
            let done = match ask {
                Ask::Write(byte) => {
                    model.write(from, sectors, byte);
                    image.write(&bytes(byte), offset)
                }
                Ask::Zero { unmap } => {
                    model.write(from, sectors, 0);
                    image.zero(offset, length, unmap)
                }
                Ask::Discard => {
                    model.discard(from, sectors);
                    image.discard(offset, length)
                }
                Ask::Flush => image.flush().map(|()| model.is(&content(&image), true)),
                Ask::Reopen => image.flush().map(|()| {
                    storage.heal();
                    let Findings { errors, leaked } = check(&storage).unwrap();
                    assert_eq!(errors, Vec::<String>::new());
                    assert!(has_crashed || leaked == 0, "{leaked} clusters");
                    image = opened(&storage, base.as_ref());
                    model.is(&content(&image), true);
                }),
                Ask::FailAfter(left) => {
                    storage.fail_after(left);
                    Ok(())
                }
                Ask::FailOnce(fault, left) => {
                    storage.fail_once(fault, left);
                    Ok(())
                }
                Ask::Kill | Ask::CutPower(_) => Err(io::ErrorKind::NotConnected.into()),
            };
            if let Err(error) = done {
                has_crashed = true;
                if error.kind() == io::ErrorKind::Other {
                    model.has_failed(&before, from, sectors);
                    continue;
                }
                prop_assert_eq!(error.kind(), io::ErrorKind::NotConnected, "{}", error);
                drop(image);
                storage.heal();
                // What the page cache has lost is found out when the machine ends.
                let is_cut = !matches!(ask, Ask::Kill) || storage.has_lost();
                if is_cut {
                    let seed = if let Ask::CutPower(seed) = ask { seed } else { offset * length * 0x9e37_79b9 };
                    storage.cut_power(|number| seed.rotate_left(u32::try_from(number % 64).unwrap()) & 1 == 1);
                }
                prop_assert_eq!(check(&storage).unwrap().errors, Vec::<String>::new());
                image = opened(&storage, base.as_ref());
                model.now = model.crashed.clone();
                model.is(&content(&image), is_cut);
            }
        }
        model.is(&content(&image), false);
        if let Some(base) = base {
            prop_assert_eq!(base.content().len() as u64, SIZE / SECTOR / 2 * SECTOR, "a backing file is never written");
        }
    }
}

/// The power goes at every moment of a course that needs new tables of all kinds, and what was
/// written last gets to the disk first.
#[test]
fn no_moment_is_a_bad_one_for_the_power_to_go() {
    let all = vec![7; usize::try_from(SIZE).unwrap()];
    for left in 0.. {
        let mut is_over = false;
        for stays in 0..4 {
            let storage = made_with(512, None);
            let image = opened(&storage, None);
            storage.fail_after(left);
            let done =
                image.write(&all, 0).and_then(|()| image.flush()).and_then(|()| image.discard(0, SIZE / 2));
            let done = done.and_then(|()| image.flush()).and_then(|()| image.write(&all, 0));
            is_over = done.and_then(|()| image.flush()).is_ok();
            let pending = storage.pending();
            storage.cut_power(|number| {
                [number + 1 == pending, number + 3 > pending, number % 2 == 0, false][stays]
            });
            assert_eq!(check(&storage).unwrap().errors, Vec::<String>::new(), "{left} {stays}");
        }
        if is_over {
            assert!(left > 1000, "{left}");
            break;
        }
    }
}

/// A disk that is written, discarded and written again takes no more space than it did.
#[test]
fn freed_clusters_are_used_again() {
    let storage = made(None);
    let image = opened(&storage, None);
    let mut length = 0;
    for round in 1..20 {
        image.write(&vec![round; usize::try_from(SIZE).unwrap()], 0).unwrap();
        image.flush().unwrap();
        image.discard(0, SIZE).unwrap();
        image.flush().unwrap();
        if round == 1 {
            length = storage.content().len().next_multiple_of(4096);
        }
        assert!(storage.content().len() <= length, "round {round}");
        assert!(content(&image).iter().all(|byte| *byte == 0));
    }
    assert_eq!(check(&storage).unwrap(), Findings::default());
}

/// More changes between two flushes than its caches hold.
#[test]
fn a_large_disk_is_written_without_a_flush() {
    let storage = Memory::default();
    // 4 KiB clusters: a piece of a table maps 2 MiB, so this takes 150 pieces.
    create(&storage, 300 << 20, CLUSTER, None).unwrap();
    let image = opened(&storage, None);
    let step = 2 << 20;
    for at in 0..150_u64 {
        image.write(&[u8::try_from(at).unwrap() + 1; 4096], at * step).unwrap();
        assert!(lock(&image.metadata).is_bounded(), "{at}");
    }
    for at in 0..150_u64 {
        let mut read = [0; 4096];
        image.read(&mut read, at * step).unwrap();
        assert_eq!(read, [u8::try_from(at).unwrap() + 1; 4096]);
    }
    drop(image);
    assert_eq!(check(&storage).unwrap().errors, Vec::<String>::new(), "killed");
}
