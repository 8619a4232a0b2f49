//! Looking inside a large chunk that was sampled and has just been touched.

use super::aside::put_page_aside;
use super::break_up::break_up;
use super::vm::Vm;
use crate::address::{Place, SLOTS, Slot, Spare};
use crate::page::{Backing, Chunk, Inside, Step};

/// Makes a large chunk that was touched at `place` small, and sets some of its other pages aside,
/// if that is planned: so the part of its pages that are touched is seen. Steps `BreakUp`,
/// `SetAside`.
///
/// The chunk was aside until now, so nothing of it was touched before `place` was: what is set
/// aside now sees all that the period would have seen.
pub(crate) fn probe(vm: &Vm, place: Place, chunk: &mut Chunk) {
    let Some(mut planned) = vm.probes.take(place.chunk) else { return };
    watch(vm, place, chunk, &mut planned.spares);
    vm.probes.release(planned.spares);
}

/// Watches as many pages as there are places; those that are not used stay in `spares`.
fn watch(vm: &Vm, place: Place, chunk: &mut Chunk, spares: &mut Vec<Spare>) {
    // A device that uses it touches it without a fault.
    if !chunk.busy().is_empty() {
        return;
    }
    let before = chunk.tally();
    let table = match break_up(&vm.memory, place.chunk) {
        Ok(table) => table,
        Err(error) => return tracing::debug!(%error, "a chunk cannot be broken up to look inside"),
    };
    vm.memory.split_huge_page(Place { slot: 0, ..place });
    let resident = table.pages(|state| state.is_resident());
    chunk.set_backing(Backing::Small(table), Step::BreakUp);
    for slot in spread(place.slot, spares.len()).filter(|&slot| resident.contains(slot)) {
        let Some(&spare) = spares.last() else { break };
        if let Err(error) = put_page_aside(vm, Place { slot, ..place }, chunk, spare) {
            tracing::debug!(%error, "a page cannot be put aside");
            break;
        }
        spares.pop();
        vm.probes.watch(Inside { chunk: place.chunk, slot, spare });
    }
    vm.record(before, chunk);
}

/// `count` pages of a chunk, as far from each other and from `touched` as can be. Nothing is left
/// to chance: a guest that knows which pages are watched can only seem to use what it does not.
fn spread(touched: Slot, count: usize) -> impl Iterator<Item = Slot> {
    let count = Slot::try_from(count).unwrap_or(SLOTS).min(SLOTS - 1);
    (1..=count).map(move |nth| {
        let distance = u32::from(nth) * u32::from(SLOTS) / (u32::from(count) + 1);
        #[expect(clippy::cast_possible_truncation, reason = "a page of a chunk")]
        let slot = ((u32::from(touched) + distance) % u32::from(SLOTS)) as Slot;
        slot
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn pages_are_spread_and_none_is_the_touched_one() {
        for touched in [0, 5, SLOTS - 1] {
            for count in [0, 1, 16, 511, 600] {
                let slots: BTreeSet<Slot> = spread(touched, count).collect();
                assert_eq!(slots.len(), count.min(511), "{touched} {count}");
                assert!(!slots.contains(&touched) && slots.iter().all(|slot| *slot < SLOTS));
            }
        }
        assert_eq!(spread(500, 3).collect::<Vec<_>>(), [116, 244, 372]);
    }
}
