//! Dropping pages that hold zeros.

use std::io;

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
    let dropped = match drop_if_zero(&vm.memory, no, table, &pages) {
        Ok(dropped) => dropped,
        Err(error) => {
            tracing::warn!(%error, "pages that hold zeros stay");
            return Pages::ZERO;
        }
    };
    let copies: Vec<_> = dropped.iter().map(|slot| table.get(slot)).collect();
    table.set_all(&dropped, PageState::Zero, Step::DropZero);
    forget(vm, copies);
    chunk.empty_if_uniform();
    vm.account().sharing.zeroed += dropped.count().0;
    let freed = vm.record(before, &chunk);
    vm.memory.wake_hull(no, &dropped);
    freed
}

fn drop_if_zero(memory: &Memory, no: ChunkNo, table: &mut Table, pages: &PageSet) -> io::Result<PageSet> {
    make_anonymous(memory, no, table, pages)?;
    let dirty = table.unguarded(pages);
    let outcome = memory.protect(no, &dirty).and_then(|()| {
        let zeros = memory.zeros(no, pages);
        memory.discard_pages(no, &zeros)?;
        Ok(zeros)
    });
    // Unprotects the dropped pages as well: where nothing is, nothing can be protected.
    memory.unprotect(no, &dirty)?;
    outcome
}
