use std::collections::BTreeMap;

use plimsoll_units::PageDigest;
use proptest::prelude::*;

use super::*;
use crate::key::Secret;
use crate::member::Place;

fn hint(number: usize) -> Target {
    Target::hint(Place(u32::try_from(number).unwrap()))
}

/// Everything that must hold whatever has happened.
fn check(index: &Index, model: &BTreeMap<u64, Target>) {
    assert_eq!(index.entries, model.len());
    assert_eq!(index.lines.len(), index.shape.len());
    let in_lines: usize = (0..index.lines.len()).map(|line| index.lines.get(line).len()).sum();
    assert_eq!(in_lines + index.overflow.len(), index.entries, "an entry is in one place");
    assert!(index.hand.is_empty());
    for (key, target) in model {
        assert_eq!(index.find(Key(*key)), Some(*target));
    }
}

#[test]
fn a_million_entries_come_and_go_and_the_table_with_them() {
    let secret = Secret::fixed();
    let mut index = Index::new().unwrap();
    let empty = index.bytes();
    let keys: Vec<Key> = (0..1_000_000).map(|n| secret.key(PageDigest(n))).collect();
    for (number, key) in keys.iter().enumerate() {
        index.set(*key, hint(number));
        if number > 10_000 && number.is_multiple_of(1000) {
            let each = index.bytes() as f64 / index.entries as f64;
            assert!(each < 11.5, "{each} bytes an entry at {number}");
        }
    }
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(index.find(*key), Some(hint(number)));
    }
    // A tag is 40 bits: one false match is expected among a million look-ups in a million entries.
    let found = (1_000_000..2_000_000).filter(|n| index.find(secret.key(PageDigest(*n))).is_some()).count();
    assert!(found < 10, "{found}");
    // Few entries are in the overflow: it costs three times as much.
    assert!(index.overflow.len() < 10_000, "{}", index.overflow.len());
    for (number, key) in keys.iter().enumerate() {
        assert!(index.remove(key.prefix(), hint(number)));
        assert!(!index.remove(key.prefix(), hint(number)));
    }
    check(&index, &BTreeMap::new());
    assert!(index.bytes() < empty + (16 << 10), "{} of {empty} bytes", index.bytes());
}

#[test]
fn entries_that_come_and_go_leave_no_trace() {
    let secret = Secret::fixed();
    let mut index = Index::new().unwrap();
    let key = |n: usize| secret.key(PageDigest(n as u128));
    (0..20_000).for_each(|n| index.set(key(n), hint(n)));
    let (lines, reach) = (index.lines.len(), mean_reach(&index));
    for n in 0..400_000 {
        assert!(index.remove(key(n).prefix(), hint(n)));
        index.set(key(n + 20_000), hint(n + 20_000));
    }
    assert!(index.lines.len() <= lines + 1 && index.overflow.len() < 200, "{}", index.overflow.len());
    assert!(mean_reach(&index) < reach + 1.0, "{} lines further to look, {reach} before", mean_reach(&index));
    assert!((0..400_000).all(|n| index.find(key(n)).is_none()));
}

fn mean_reach(index: &Index) -> f64 {
    let sum: usize = (0..index.lines.len()).map(|line| index.lines.get(line).reach()).sum();
    sum as f64 / index.lines.len() as f64
}

#[test]
fn keys_that_all_go_to_one_place_are_kept_all_the_same() {
    // Without the secret no member can do that. If it happens, look-ups are slow and right.
    let mut index = Index::new().unwrap();
    let mut model = BTreeMap::new();
    for n in 0..5000 {
        let key = 0xabcd_e000_0000_0000 | (n as u64) << 24;
        index.set(Key(key), hint(n));
        model.insert(key, hint(n));
    }
    check(&index, &model);
    for n in 0..5000 {
        let key = Key(0xabcd_e000_0000_0000 | (n as u64) << 24);
        assert!(index.remove(key.prefix(), hint(n)));
    }
    check(&index, &BTreeMap::new());
}

proptest! {
    #[test]
    fn the_index_does_what_a_map_does(
        steps in prop::collection::vec((0usize..3, 0u64..600, any::<u32>()), 1..3000),
        spread in prop::sample::select(vec![0u32, 24, 30, 34, 55]),
    ) {
        let mut index = Index::new().unwrap();
        let mut model = BTreeMap::new();
        let secret = Secret::fixed();
        for (number, (step, hash, _)) in steps.into_iter().enumerate() {
            // Keys that are spread, or close to each other, so that groups and lines are full.
            let key = if spread == 0 { secret.key(PageDigest(hash.into())) } else { Key(hash << spread) };
            match step {
                0 | 1 => {
                    index.set(key, hint(number));
                    model.insert(key.0, hint(number));
                }
                _ => {
                    let removed = model.remove(&key.0);
                    let target = removed.unwrap_or(hint(1 << 30));
                    prop_assert_eq!(index.remove(key.prefix(), target), removed.is_some());
                    prop_assert_eq!(index.find(key), None);
                }
            }
        }
        check(&index, &model);
    }
}
