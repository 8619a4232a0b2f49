//! Dropping pages that hold zeros.

use plimsoll_units::Pages;

use super::anonymous::make_anonymous;
use super::elsewhere::forget;
use super::vm::Vm;
use crate::address::{ChunkNo, PageSet};
use crate::memory::Memory;
use crate::page::{Backing, PageState, Step, Table};

/// Drops pages that still hold zeros; returns by how much the VM holds less. Step `DropZero`.
pub(crate) fn drop_zeros(vm: &Vm, no: ChunkNo, zeros: &PageSet) -> Pages {
    if zeros.is_empty() {
        return Pages::ZERO;
    }
    let mut chunk = vm.chunk(no);
    let before = chunk.tally();
    let busy = chunk.busy();
    let Backing::Small(table) = &mut chunk.backing else { return Pages::ZERO };
    let pages = table.among(zeros, PageState::is_resident).minus(&busy);
    let dropped = drop_if_zero(&vm.memory, no, table, &pages);
    let copies: Vec<_> = dropped.iter().map(|slot| table.get(slot)).collect();
    table.set_all(&dropped, PageState::Zero, Step::DropZero);
    forget(vm, copies);
    chunk.empty_if_uniform();
    vm.account().sharing.zeroed += dropped.count().0;
    let freed = vm.record(before, &chunk);
    vm.memory.wake_hull(no, &dropped);
    freed
}

/// Drops those of `pages` that hold zeros, and returns which: fewer if the kernel refuses.
fn drop_if_zero(memory: &Memory, no: ChunkNo, table: &mut Table, pages: &PageSet) -> PageSet {
    let dirty = table.unguarded(pages);
    let protected = make_anonymous(memory, no, table, pages).and_then(|()| memory.protect(no, &dirty));
    let mut dropped = PageSet::EMPTY;
    let outcome = protected.and_then(|()| {
        memory.zeros(no, pages).runs().try_for_each(|run| {
            memory.discard(no, run)?;
            dropped = dropped.union(&PageSet::span(run.0, run.1));
            Ok(())
        })
    });
    // Unprotects the dropped pages as well: where nothing is, nothing can be protected.
    if let Err(error) = outcome.and(memory.unprotect(no, &dirty)) {
        tracing::warn!(%error, "pages that hold zeros stay, or stay write-protected");
    }
    dropped
}
