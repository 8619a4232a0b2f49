//! Shared pages that get copies of their own.

use plimsoll_units::{FrameNo, Pages};

use super::frames::let_frames_go;
use super::vm::Vm;
use crate::address::{ChunkNo, PageSet, Place};
use crate::page::{Backing, PageState, Table};

/// Gives a shared page, charged already, a copy of its own; false where that cannot be done.
pub(crate) fn break_page(vm: &Vm, place: Place, table: &mut Table, frame: FrameNo) -> bool {
    if let Err(error) = vm.memory.unprotect(place.chunk, &PageSet::one(place.slot)) {
        tracing::error!(%error, ppn = vm.memory.ppn(place).0, "cannot let a shared page be written");
        vm.memory.wake(place);
        return false;
    }
    // The kernel copies it now, and not when the guest comes to it: the frame may be another one by then.
    vm.memory.copy_frame(place);
    table.set(place.slot, PageState::Private);
    table.recent.insert(place.slot);
    table.broken.insert(place.slot);
    table.overlaid.insert(place.slot);
    table.departed.push((place.slot, frame));
    vm.account().sharing.broken += 1;
    true
}

/// Gives shared pages of a chunk copies of their own, as far as the grant goes.
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
    let_frames_go(vm, no, &mut chunk);
    let mut account = vm.account();
    account.changed(before, chunk.tally());
    account.uncharge(left);
}
