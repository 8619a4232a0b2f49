//! Large chunks that become small or empty.

use std::io;

use plimsoll_units::Pages;

use super::aside::bring_back;
use super::vm::Vm;
use crate::address::{ChunkNo, Place, SLOTS};
use crate::memory::Memory;
use crate::page::{Backing, Chunk, Step, Table};

/// The table of a large chunk that becomes small. Armed first, so that no further page appears;
/// then the kernel knows which pages are present. Step `BreakUp`.
pub(crate) fn break_up(memory: &Memory, no: ChunkNo) -> io::Result<Box<Table>> {
    memory.arm(no)?;
    let backed = memory.backed(no).or_else(|error| match memory.disarm(no) {
        Ok(()) => Err(error),
        // It must not stay large: its missing pages would ask, and nobody would answer.
        Err(_) => memory.backed(no),
    });
    Ok(Table::of_private(&backed?))
}

/// Gives a whole large chunk back; false if its pages could not be discarded. Step `EmptyLarge`.
///
/// Armed first: a page that the guest touches after the discard must ask, or it would be present
/// without being charged.
pub(crate) fn empty_large(memory: &Memory, no: ChunkNo, chunk: &mut Chunk) -> io::Result<bool> {
    memory.arm(no)?;
    let discarded = memory.discard(no, (0, SLOTS)).is_ok();
    if discarded {
        chunk.set_backing(Backing::default(), Step::EmptyLarge);
    }
    Ok(discarded)
}

/// Makes a large chunk small, so that pages of it can be shared; returns by how much the VM holds
/// less, or `None` if the chunk cannot be broken up. Step `BreakUp`.
pub(crate) fn break_large(vm: &Vm, no: ChunkNo) -> Option<Pages> {
    let mut chunk = vm.chunk(no);
    let before = chunk.tally();
    if let Backing::Aside(_) = chunk.backing
        && let Err(error) = bring_back(&vm.memory, no, &mut chunk)
    {
        tracing::warn!(%error, "a chunk stays aside, and pages of it are not shared");
        return None;
    }
    let Backing::Large = chunk.backing else { return Some(Pages::ZERO) };
    if !chunk.busy().is_empty() {
        return None;
    }
    match break_up(&vm.memory, no) {
        Ok(table) => drop(chunk.set_backing(Backing::Small(table), Step::BreakUp)),
        Err(error) => {
            tracing::warn!(%error, "a large chunk cannot be broken up to share pages of it");
            return None;
        }
    }
    vm.memory.split_huge_page(Place { chunk: no, slot: 0 });
    chunk.empty_if_uniform();
    Some(vm.record(before, &chunk))
}
