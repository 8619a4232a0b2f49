use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn numbers(slots: &[SwapSlot]) -> Vec<u32> {
    slots.iter().map(|slot| slot.0).collect()
}

#[test]
fn what_leaves_in_turn_lies_in_a_row() {
    let mut slots = Slots::new(200);
    assert_eq!(numbers(&slots.reserve(64)), (0..64).collect::<Vec<_>>());
    assert_eq!(numbers(&slots.reserve(70)), (64..134).collect::<Vec<_>>());
    slots.free(SwapSlot(3));
    assert_eq!(numbers(&slots.reserve(2)), [134, 135], "a hole is not worth going back for");
    assert_eq!(slots.reserve(u16::MAX).len(), 65);
    assert_eq!(slots.reserve(1), []);
}

#[test]
fn long_runs_are_taken_before_short_ones() {
    let mut slots = Slots::new(256);
    slots.reserve(256);
    for slot in (0..64).step_by(2).chain(100..110).chain(200..230) {
        slots.free(SwapSlot(slot));
    }
    assert_eq!(numbers(&slots.reserve(24)), (200..224).collect::<Vec<_>>());
    let rest = numbers(&slots.reserve(16));
    assert!((100..110).all(|slot| rest.contains(&slot)), "{rest:?}");
    assert!((224..230).all(|slot| rest.contains(&slot)), "{rest:?}");
}

#[test]
fn a_slot_freed_with_io_in_flight_is_not_reused_before_its_end() {
    let mut slots = Slots::new(1);
    let slot = slots.reserve(1)[0];
    slots.begin(slot);
    slots.begin(slot);
    slots.free(slot);
    slots.end(slot);
    assert_eq!((slots.reserve(1), slots.is_idle()), (vec![], false));
    slots.end(slot);
    assert_eq!((slots.reserve(1), slots.is_idle()), (vec![slot], true));
}

#[test]
fn a_long_run_beyond_the_window_is_found_by_and_by() {
    let mut slots = Slots::new(3 * WINDOW);
    while slots.free_slots() > 0 {
        slots.reserve(u16::MAX);
    }
    for slot in 2 * WINDOW..2 * WINDOW + 100 {
        slots.free(SwapSlot(slot));
    }
    assert_eq!(slots.reserve(100).len(), 100);
}

proptest! {
    #[test]
    fn slots_in_use_are_never_handed_out(
        len in 1u32..400,
        steps in prop::collection::vec((0u8..6, 0u16..90, any::<prop::sample::Index>()), 1..80)
    ) {
        let mut slots = Slots::new(len);
        let (mut used, mut flying, mut freed) = (Vec::new(), Vec::new(), HashSet::new());
        for (step, count, which) in steps {
            match step {
                0 | 1 => {
                    let free = slots.free_slots();
                    let new = slots.reserve(count);
                    prop_assert_eq!(new.len(), usize::from(count).min(free as usize));
                    for slot in new {
                        prop_assert!(slot.0 < len && !used.contains(&slot) && !flying.contains(&slot));
                        used.push(slot);
                    }
                }
                2 | 3 if !used.is_empty() => {
                    let slot = used.swap_remove(which.index(used.len()));
                    slots.free(slot);
                    if flying.contains(&slot) {
                        freed.insert(slot);
                    }
                }
                4 if !used.is_empty() => {
                    let slot = used[which.index(used.len())];
                    slots.begin(slot);
                    flying.push(slot);
                }
                5 if !flying.is_empty() => {
                    let slot = flying.swap_remove(which.index(flying.len()));
                    slots.end(slot);
                    if !flying.contains(&slot) {
                        freed.remove(&slot);
                    }
                }
                _ => {}
            }
            prop_assert_eq!(slots.free_slots() as usize, len as usize - used.len() - freed.len());
            prop_assert_eq!(slots.is_idle(), flying.is_empty());
        }
    }
}
