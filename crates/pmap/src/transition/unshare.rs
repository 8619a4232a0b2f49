//! Shared pages that get copies of their own.

use plimsoll_units::{FrameNo, Pages};

use super::frames::return_frames;
use super::vm::Vm;
use crate::address::{ChunkNo, PageSet, Place};
use crate::page::{Backing, PageState, Step, Table};

/// Gives a shared page, which is charged, a copy of its own; false if that fails. Step `Unshare`.
pub(crate) fn break_page(vm: &Vm, place: Place, table: &mut Table, frame: FrameNo) -> bool {
    if let Err(error) = vm.memory.unprotect(place.chunk, &PageSet::one(place.slot)) {
        tracing::error!(%error, ppn = vm.memory.ppn(place).0, "cannot let a shared page be written");
        vm.memory.wake(place);
        return false;
    }
    // Copies the page now, and not when the guest writes it: the frame may have other content by
    // then.
    vm.memory.copy_frame(place);
    table.set(place.slot, PageState::Private, Step::Unshare);
    table.recent.insert(place.slot);
    table.broken.insert(place.slot);
    table.overlaid.insert(place.slot);
    table.unreturned.push((place.slot, frame));
    vm.account().sharing.broken += 1;
    true
}

/// Gives shared pages of a chunk copies of their own, as far as the grant has pages that no fault
/// waits for.
pub(crate) fn unshare(vm: &Vm, no: ChunkNo) {
    let mut chunk = vm.chunk(no);
    let before = chunk.tally();
    let Backing::Small(table) = &mut chunk.backing else { return };
    if before.shared == Pages::ZERO {
        return;
    }
    let mut left = vm.account().charge_spare(before.shared);
    for slot in table.pages(|state| state.frame().is_some()).iter() {
        let PageState::Shared(frame) = table.get(slot) else { continue };
        if left > Pages::ZERO && break_page(vm, Place { chunk: no, slot }, table, frame) {
            left -= Pages(1);
        }
    }
    return_frames(vm, no, &mut chunk);
    let mut account = vm.account();
    account.changed(before, chunk.tally());
    account.uncharge(left);
}
