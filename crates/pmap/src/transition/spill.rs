//! Moving the oldest pages of the store into the swap.

use super::elsewhere::forget;
use super::vm::Vm;
use crate::address::Place;
use crate::content::Swap;
use crate::page::{Backing, PageState, Step};

/// Moves the oldest page of the store into the swap; false if there is no page, buffer or slot.
/// Step `Spill`.
pub(crate) fn spill(vm: &Vm, swap: &Swap) -> bool {
    let Some((handle, owner)) = vm.content.oldest_in_store() else { return false };
    let place = Place::of(owner);
    let mut chunk = vm.chunk(place.chunk);
    let before = chunk.tally();
    let compressed = PageState::Compressed(handle);
    let Backing::Small(table) = &mut chunk.backing else { return true };
    if table.get(place.slot) != compressed {
        // It was just brought back or given up, and is not the oldest any more.
        return true;
    }
    let Some(mut buffer) = swap.buffer() else { return false };
    let Some(&to) = swap.reserve(1).first() else { return false };
    vm.content.unpack(handle, &mut buffer);
    table.set(place.slot, PageState::Leaving(to), Step::Spill);
    swap.write(vec![(to, owner, buffer)]);
    vm.record(before, &chunk);
    vm.account().traffic.swapped_out += 1;
    forget(vm, [compressed]);
    true
}
