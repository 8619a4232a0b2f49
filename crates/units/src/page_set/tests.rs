use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn runs_cover_the_set_and_nothing_else(slots in prop::collection::btree_set(0..SLOTS, 0..512)) {
        let set: PageSet = slots.iter().copied().collect();
        prop_assert_eq!(set.iter().collect::<std::collections::BTreeSet<_>>(), slots);
        let mut rebuilt = PageSet::EMPTY;
        let mut last_end = None;
        for (first, len) in set.runs() {
            prop_assert!(len > 0 && last_end.is_none_or(|end| first > end), "runs are maximal and in order");
            last_end = Some(first + len);
            rebuilt = rebuilt.union(&PageSet::span(first, len));
        }
        prop_assert_eq!(rebuilt, set);
        prop_assert_eq!(set.next(300), set.iter().find(|slot| *slot >= 300));
        prop_assert_eq!(set.count(), Pages(set.iter().count() as u64));
        set.iter().for_each(|slot| rebuilt.remove(slot));
        prop_assert!(rebuilt.is_empty());
    }
}

#[test]
fn the_hull_of_a_set_has_all_of_it() {
    assert_eq!(PageSet::EMPTY.hull(), None);
    assert_eq!(PageSet::one(511).hull(), Some((511, 1)));
    assert_eq!(PageSet::one(3).union(&PageSet::span(70, 5)).hull(), Some((3, 72)));
}

#[test]
fn a_span_has_its_pages_and_no_others() {
    for first in (0..SLOTS + 70).step_by(7) {
        for len in [0, 1, 57, 63, 64, 65, 128, 511, SLOTS, Slot::MAX] {
            let all: PageSet =
                (0..SLOTS).filter(|slot| (first..first.saturating_add(len)).contains(slot)).collect();
            assert!(PageSet::span(first, len) == all, "{first} {len}");
        }
    }
}

#[test]
fn a_span_past_the_end_is_cut_off() {
    assert_eq!(PageSet::span(510, 9).count(), Pages(2));
    assert_eq!(PageSet::span(0, 512), PageSet::FULL);
    assert_eq!(PageSet::FULL.first(Pages(3)), PageSet::span(0, 3));
}
