//! Setting memory aside as samples, and bringing it back. It stays charged.

use std::io;

use super::anonymous::make_anonymous;
use super::elsewhere::forget;
use super::vm::Vm;
use crate::address::{ChunkNo, PageSet, Place, SLOTS, Spare};
use crate::memory::Memory;
use crate::page::{Backing, Chunk, PageState, Step, Table};

/// Sets a large chunk aside, so that its next touch asks. Step `SetAside`. Armed first: a page
/// touched in between would be present in the chunk, and lost when the others come back.
///
/// On error the chunk is as it was, or small where it cannot be disarmed: a large one that is armed
/// would ask for its missing pages, and nobody would answer. Step `BreakUp`.
pub(crate) fn put_chunk_aside(
    memory: &Memory,
    no: ChunkNo,
    chunk: &mut Chunk,
    spare: Spare,
) -> io::Result<()> {
    memory.arm(no)?;
    if let Err(error) = memory.set_aside(no, (0, SLOTS), spare) {
        if memory.disarm(no).is_err() {
            let backed = memory.backed(no)?;
            chunk.set_backing(Backing::Small(Table::of_private(&backed)), Step::BreakUp);
            chunk.empty_if_uniform();
        }
        return Err(error);
    }
    chunk.set_backing(Backing::Aside(spare), Step::SetAside);
    Ok(())
}

/// Brings back all of a chunk that is aside, and wakes the threads that wait for it. A chunk that
/// was aside is large again. On error the rest stays aside. Step `BringBack`.
pub(crate) fn bring_back(memory: &Memory, no: ChunkNo, chunk: &mut Chunk) -> io::Result<()> {
    match &chunk.backing {
        Backing::Aside(_) => {
            bring_chunk_back(memory, no, chunk)?;
            memory.try_wake(no, (0, SLOTS))
        }
        Backing::Small(table) => {
            let aside = table.pages(|state| matches!(state, PageState::Aside(_)));
            aside
                .iter()
                .try_for_each(|slot| bring_page_back(memory, Place { chunk: no, slot }, chunk).map(drop))
        }
        Backing::Empty { .. } | Backing::Large => Ok(()),
    }
}

/// The threads that wait for it are still to be woken.
pub(super) fn bring_chunk_back(memory: &Memory, no: ChunkNo, chunk: &mut Chunk) -> io::Result<()> {
    let Backing::Aside(spare) = chunk.backing else { return Ok(()) };
    // Memory that was moved is not armed.
    if !memory.bring_back(no, (0, SLOTS), spare)?
        && let Err(error) = memory.disarm(no)
    {
        // All of its pages are there: none of them asks.
        tracing::debug!(%error, "a large chunk stays armed");
    }
    chunk.set_backing(Backing::Large, Step::BringBack);
    Ok(())
}

/// Brings a page of a small chunk back and wakes the threads that wait for it. Returns where it
/// was, if it was aside. Step `BringBack`.
pub(crate) fn bring_page_back(memory: &Memory, place: Place, chunk: &mut Chunk) -> io::Result<Option<Spare>> {
    let Backing::Small(table) = &mut chunk.backing else { return Ok(None) };
    let PageState::Aside(spare) = table.get(place.slot) else { return Ok(None) };
    memory.bring_back(place.chunk, (place.slot, 1), spare)?;
    table.set(place.slot, PageState::Private, Step::BringBack);
    let run = (place.slot, 1);
    // The page is present: no touch finds it missing before it is armed again. Alone it may need a
    // mapping more than the process may have.
    memory.arm_run(place.chunk, run).or_else(|_| memory.arm(place.chunk))?;
    memory.try_wake(place.chunk, run)?;
    Ok(Some(spare))
}

/// Sets a resident page of a small chunk aside. Its copy in the swap is given up: kernels differ in
/// what they do with the write protection of a page that moves. Steps `Dirty`, `SetAside`.
///
/// On error the page is where it was, and private.
pub(crate) fn put_page_aside(vm: &Vm, place: Place, chunk: &mut Chunk, spare: Spare) -> io::Result<()> {
    let Backing::Small(table) = &mut chunk.backing else { return Ok(()) };
    let state = table.get(place.slot);
    if let PageState::Clean(_) = state {
        vm.memory.unprotect(place.chunk, &PageSet::one(place.slot))?;
        table.set(place.slot, PageState::Private, Step::Dirty);
        forget(vm, [state]);
    }
    make_anonymous(&vm.memory, place.chunk, table, &PageSet::one(place.slot))?;
    vm.memory.set_aside(place.chunk, (place.slot, 1), spare)?;
    table.set(place.slot, PageState::Aside(spare), Step::SetAside);
    Ok(())
}
