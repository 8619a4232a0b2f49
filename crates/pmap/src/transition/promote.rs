//! Small chunks that become large again.

use plimsoll_units::Pages;

use super::anonymous::{Armed, merge_mappings};
use super::elsewhere::forget;
use super::frames::return_unused_frames;
use super::provide::provide_page;
use super::vm::Vm;
use crate::address::{ChunkNo, PageSet, Place};
use crate::memory::warn_of_mappings;
use crate::page::{Backing, PageState, Step, Table, Touch};

/// Pages that a small chunk must have to be worth making large: half. With fewer, most of the cost
/// would be for pages that are not used, and whose content may have to be fetched first.
const WORTH: Pages = Pages(Pages::CHUNK.0 / 2);

/// Makes a small chunk large if at least half of its pages are charged, none is ballooned, and the
/// grant suffices for the rest. Pages in the swap are asked for, so that a later call finds them
/// resident. Step `Promote`.
pub(crate) fn promote_chunk(vm: &Vm, no: ChunkNo) -> bool {
    let mut chunk = vm.chunk(no);
    let before = chunk.tally();
    let busy = !chunk.busy().is_empty();
    let Backing::Small(table) = &mut chunk.backing else { return false };
    if before.backed < WORTH || before.ballooned > Pages::ZERO || busy {
        return false;
    }
    let rest = Pages::CHUNK - before.backed;
    let mut left = vm.account().charge_spare(rest);
    let promoted = left == rest && complete(vm, no, table, &mut left) && hand_over(vm, no, table);
    return_unused_frames(vm, no, table, &PageSet::EMPTY);
    if promoted {
        left = Pages::ZERO;
        chunk.set_backing(Backing::Large, Step::Promote);
    }
    let mut account = vm.account();
    account.changed(before, chunk.tally());
    account.uncharge(left);
    promoted
}

/// Provides all pages whose content is elsewhere or shared; false while some are on their way.
fn complete(vm: &Vm, no: ChunkNo, table: &mut Table, left: &mut Pages) -> bool {
    let apart = |state: PageState| state.is_elsewhere() || state.frame().is_some();
    for slot in table.pages(apart).iter() {
        provide_page(vm, Place { chunk: no, slot }, table, left, Touch::ReadAhead);
    }
    table.pages(|state| !state.is_resident() && !state.is_blank()).is_empty()
}

/// Has the kernel serve a complete chunk by itself.
fn hand_over(vm: &Vm, no: ChunkNo, table: &mut Table) -> bool {
    if !make_all_dirty(vm, no, table) {
        return false;
    }
    match merge_mappings(&vm.memory, no, table) {
        Ok(Armed::No) => {}
        Ok(Armed::Yes) => {
            if let Err(error) = vm.memory.disarm(no) {
                warn_of_mappings(&error);
                return false;
            }
        }
        Err(error) => {
            tracing::warn!(%error, "a chunk that had shared pages stays small");
            return false;
        }
    }
    vm.memory.collapse(no);
    true
}

/// Gives up the swap's copies of a chunk's resident pages, which may be written from now on; false
/// if the kernel refuses: the rest keep their copies. Step `Dirty`.
pub(crate) fn make_all_dirty(vm: &Vm, no: ChunkNo, table: &mut Table) -> bool {
    let clean = table.pages(|state| matches!(state, PageState::Clean(_)));
    for (first, len) in clean.runs() {
        let run = PageSet::span(first, len);
        if let Err(error) = vm.memory.unprotect(no, &run) {
            tracing::error!(%error, "pages that have copies in the swap stay write-protected");
            return false;
        }
        // Their copies are not theirs any more, from the moment that they may be written.
        let copies: Vec<_> = run.iter().map(|slot| table.get(slot)).collect();
        table.set_all(&run, PageState::Private, Step::Dirty);
        forget(vm, copies);
    }
    true
}
