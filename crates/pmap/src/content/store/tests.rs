use std::collections::VecDeque;

use plimsoll_units::Pages;
use proptest::prelude::*;

use super::pack::unpack;
use super::*;
use crate::address::SLOTS;
use crate::memory::Pagemap;

/// A page that starts with `noise` bytes of noise, which is about what it shrinks to.
fn page(seed: u64, noise: usize) -> [u8; PAGE] {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut page = [seed.to_le_bytes()[0]; PAGE];
    for byte in &mut page[..noise] {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = state.to_le_bytes()[7];
    }
    page
}

/// The store with what should be in it, oldest first.
struct Pair {
    store: Store,
    model: VecDeque<Entry>,
    pagemap: Pagemap,
    inserts: u64,
}

struct Entry {
    handle: Handle,
    owner: u64,
    noise: usize,
    packed: usize,
}

impl Pair {
    fn new(most: u64) -> Self {
        let store = Store::new(Pages(most)).unwrap();
        Self { store, model: VecDeque::new(), pagemap: Pagemap::open().unwrap(), inserts: 0 }
    }

    /// False where the store is full.
    fn insert(&mut self, noise: usize) -> bool {
        let owner = self.inserts;
        let mut out = [0; MOST_PACKED];
        let packed = pack(&page(owner, noise), &mut out).unwrap();
        let certain = self.store.room_for(1);
        let before = self.store.pages();
        let inserted = self.store.insert(owner, &out[..packed]);
        // A page of the log and one of the index: the caller has freed as much.
        assert!(self.store.pages().0 <= before.0 + 2);
        let Some(handle) = inserted else {
            assert!(!certain, "room was promised");
            assert_eq!(self.store.pages(), before);
            return false;
        };
        self.inserts += 1;
        self.model.push_back(Entry { handle, owner, noise, packed });
        true
    }

    fn check_content(&self, at: usize) {
        let entry = &self.model[at];
        let mut found = [0xee; PAGE];
        self.store.read(entry.handle, &mut found);
        assert!(found == page(entry.owner, entry.noise), "content of entry {}", entry.owner);
    }

    fn remove(&mut self, at: usize) {
        self.check_content(at);
        let entry = self.model.remove(at).unwrap();
        self.store.remove(entry.handle);
    }

    /// What must hold after every step.
    fn check(&self) {
        let oldest = self.model.front().map(|entry| (entry.handle, entry.owner));
        assert_eq!(self.store.oldest(), oldest);
        assert!(self.store.occupied() <= self.store.most);
        let live: usize = self.model.iter().map(|entry| record::size(entry.packed) + 4).sum();
        self.check_fragmentation(live);
    }

    fn check_fragmentation(&self, live: usize) {
        let occupied = self.store.occupied();
        let waste = occupied * PAGE - live;
        assert!(occupied < 80 || waste * 100 <= occupied * PAGE * 15, "{waste} bytes of {occupied} pages");
        if self.model.is_empty() {
            assert_eq!(occupied, 0);
        }
    }

    /// Pages that the kernel has given the store.
    fn mapped(&self) -> usize {
        [self.store.log.memory(), self.store.index.memory()].into_iter().map(|m| self.backed(m)).sum()
    }

    fn backed(&self, memory: &[u8]) -> usize {
        let chunk = usize::from(SLOTS) * PAGE;
        let of = |part: &[u8]| {
            let backed = self.pagemap.backed(part.as_ptr() as u64).unwrap();
            (0..SLOTS).take(part.len() / PAGE).filter(|slot| backed.contains(*slot)).count()
        };
        memory.chunks(chunk).map(of).sum()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(usize),
    Remove(prop::sample::Index),
    RemoveOldest,
    /// As a pager does it: as many at once as there is room for.
    Fill(usize, usize),
    Drain(usize, u64),
    Clear,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => (0..1900_usize).prop_map(Step::Insert),
        12 => any::<prop::sample::Index>().prop_map(Step::Remove),
        4 => Just(Step::RemoveOldest),
        3 => (1..200_usize, 0..1900_usize).prop_map(|(count, noise)| Step::Fill(count, noise)),
        2 => (1..150_usize, any::<u64>()).prop_map(|(count, seed)| Step::Drain(count, seed)),
        1 => Just(Step::Clear),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_holds_what_was_put_in_and_no_more_memory_than_it_says(steps in steps(), most in 1..300_u64) {
        let mut pair = Pair::new(most);
        for step in steps {
            let len = pair.model.len();
            match step {
                Step::Insert(noise) => drop(pair.insert(noise)),
                Step::Remove(at) if len > 0 => pair.remove(at.index(len)),
                Step::RemoveOldest if len > 0 => pair.remove(0),
                Step::Fill(count, noise) => {
                    let certain = pair.store.room_for(count);
                    let all = (0..count).all(|_| pair.insert(noise));
                    prop_assert!(all || !certain);
                }
                Step::Drain(count, seed) => {
                    for i in 0..count.min(len) as u64 {
                        pair.remove(usize::try_from(seed.wrapping_mul(i) % pair.model.len() as u64).unwrap());
                        pair.check();
                    }
                }
                Step::Clear => {
                    pair.model.clear();
                    pair.store.clear();
                }
                Step::Remove(_) | Step::RemoveOldest => {}
            }
            pair.check();
            prop_assert_eq!(pair.mapped(), pair.store.occupied());
        }
        (0..pair.model.len()).for_each(|at| pair.check_content(at));
    }
}

/// Numbers below `bound`, the same in every run.
fn random(state: &mut u64, bound: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).unwrap() % bound
}

#[test]
fn a_large_store_that_turns_over_and_shrinks_stays_dense() {
    let mut pair = Pair::new(3000);
    let mut state = 1;
    let mut live = 0;
    let size = |entry: &Entry| record::size(entry.packed) + 4;
    while pair.insert(random(&mut state, 1900)) {
        live += size(pair.model.back().unwrap());
    }
    let full = pair.model.len();
    for _ in 0..2 * full {
        let gone = pair.model.swap_remove_back(random(&mut state, pair.model.len())).unwrap();
        live -= size(&gone);
        pair.store.remove(gone.handle);
        if pair.insert(random(&mut state, 1900)) {
            live += size(pair.model.back().unwrap());
        }
        pair.check_fragmentation(live);
    }
    assert_eq!(pair.mapped(), pair.store.occupied());
    while pair.model.len() > full / 20 {
        let gone = pair.model.swap_remove_back(random(&mut state, pair.model.len())).unwrap();
        live -= size(&gone);
        pair.store.remove(gone.handle);
        pair.check_fragmentation(live);
    }
    assert_eq!(pair.mapped(), pair.store.occupied());
    (0..pair.model.len()).for_each(|at| pair.check_content(at));
    pair.model.drain(..).for_each(|entry| pair.store.remove(entry.handle));
    assert_eq!((pair.store.occupied(), pair.mapped()), (0, 0));
}

#[test]
fn the_bound_is_reached_and_kept() {
    let mut pair = Pair::new(64);
    while pair.insert(1900) {}
    assert!((63..=64).contains(&pair.store.pages().0));
    let content: usize = pair.model.iter().map(|entry| entry.packed).sum();
    assert!(content >= 60 * PAGE, "{content} bytes in 64 pages");
    assert!(!pair.store.room_for(2));
    pair.remove(0);
    pair.remove(5);
    assert!(pair.insert(10) && pair.store.pages().0 <= 64);
}

#[test]
fn a_store_of_no_pages_takes_nothing() {
    let mut pair = Pair::new(0);
    assert!(!pair.insert(10));
    assert!(!pair.store.room_for(1) && pair.store.room_for(0));
    assert_eq!((pair.store.oldest(), pair.store.pages()), (None, Pages::ZERO));
}

#[test]
fn the_oldest_leaves_first_and_copies_nothing() {
    let mut pair = Pair::new(1000);
    (0..500).for_each(|_| assert!(pair.insert(1500)));
    for expected in 0..500 {
        let (handle, owner) = pair.store.oldest().unwrap();
        assert_eq!(owner, expected);
        let before = pair.store.pages();
        pair.store.remove(handle);
        assert!(pair.store.pages() <= before);
    }
    assert_eq!((pair.store.oldest(), pair.mapped()), (None, 0));
}

#[test]
fn a_handle_stays_valid_while_others_come_and_go() {
    let mut pair = Pair::new(500);
    (0..600).for_each(|_| assert!(pair.insert(700)));
    while pair.model.len() > 1 {
        pair.remove(usize::from(pair.model.len() > 300));
    }
    let kept = pair.model[0].handle;
    for _ in 0..300 {
        assert!(pair.insert(1800));
    }
    assert_eq!(pair.store.oldest().unwrap().0, kept);
    (0..pair.model.len()).for_each(|at| pair.check_content(at));
}

#[test]
fn owners_beyond_what_an_entry_can_name_are_refused() {
    let mut store = Store::new(Pages(10)).unwrap();
    assert!(store.insert(u64::from(u32::MAX) + 1, &[1, 2, 3]).is_none());
    assert!(store.insert(u32::MAX.into(), &[1, 2, 3]).is_some());
    assert_eq!(store.oldest().unwrap().1, u64::from(u32::MAX));
}

#[test]
fn what_is_no_packed_page_is_refused() {
    let mut store = Store::new(Pages(10)).unwrap();
    assert!(store.insert(1, &[]).is_none() && store.insert(1, &[0; MOST_PACKED + 1]).is_none());
    assert_eq!(store.pages(), Pages::ZERO);
}

#[test]
fn noise_does_not_shrink_and_half_noise_does() {
    let mut out = [0; MOST_PACKED];
    for noise in [2060, 3000, PAGE] {
        assert_eq!(pack(&page(7, noise), &mut out), None);
    }
    for noise in [0, 1, 1000, 2000] {
        let len = pack(&page(7, noise), &mut out).unwrap();
        assert!(len >= noise && len <= noise + 48, "{noise} bytes of noise became {len}");
        let mut back = [0; PAGE];
        unpack(&out[..len], &mut back);
        assert!(back == page(7, noise));
    }
}
