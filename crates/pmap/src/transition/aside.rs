//! Setting memory aside and bringing it back. What is aside stays charged.

use std::io;

use super::elsewhere::forget;
use super::rehome::rehome;
use super::vm::Vm;
use crate::address::{ChunkNo, PageSet, Place, SLOTS, Spare};
use crate::memory::Memory;
use crate::page::{Backing, Chunk, Evidence, PageState};

/// Puts all pages of a large chunk aside, so that its next touch asks. Armed first: a page touched in between would be
/// present in the chunk, and lost when the others come back.
///
/// On error the chunk is as it was.
pub(crate) fn put_chunk_aside(
    memory: &Memory,
    no: ChunkNo,
    chunk: &mut Chunk,
    spare: Spare,
) -> io::Result<()> {
    memory.arm(no)?;
    if let Err(error) = memory.set_aside(no, (0, SLOTS), spare) {
        memory.disarm(no)?;
        return Err(error);
    }
    chunk.backing = Backing::Aside(spare);
    Ok(())
}

/// Brings everything of a chunk back that is aside, and wakes who waits for it. A chunk that was aside is large again. On
/// error the rest is still aside.
pub(crate) fn bring_back(memory: &Memory, no: ChunkNo, chunk: &mut Chunk) -> io::Result<()> {
    match &chunk.backing {
        Backing::Aside(_) => bring_chunk_back(memory, no, chunk),
        Backing::Small(table) => {
            let aside = table.pages(|state| matches!(state, PageState::Aside(_)));
            aside
                .iter()
                .try_for_each(|slot| bring_page_back(memory, Place { chunk: no, slot }, chunk).map(drop))
        }
        Backing::Empty { .. } | Backing::Large => Ok(()),
    }
}

fn bring_chunk_back(memory: &Memory, no: ChunkNo, chunk: &mut Chunk) -> io::Result<()> {
    let Backing::Aside(spare) = chunk.backing else { return Ok(()) };
    // A mapping that moves is not armed.
    if !memory.bring_back(no, (0, SLOTS), spare)?
        && let Err(error) = memory.disarm(no)
    {
        // All of its pages are there: none of them asks.
        tracing::debug!(%error, "a large chunk stays armed");
    }
    chunk.backing = Backing::Large;
    memory.try_wake(no, (0, SLOTS))
}

/// Brings a page of a small chunk back and wakes who waits for it; false where it was not aside.
pub(crate) fn bring_page_back(memory: &Memory, place: Place, chunk: &mut Chunk) -> io::Result<bool> {
    let Backing::Small(table) = &mut chunk.backing else { return Ok(false) };
    let PageState::Aside(spare) = table.get(place.slot) else { return Ok(false) };
    memory.bring_back(place.chunk, (place.slot, 1), spare)?;
    table.set(place.slot, PageState::Private);
    let run = (place.slot, 1);
    // It is present: nobody can find it missing before it is armed again.
    memory.arm_run(place.chunk, run)?;
    memory.try_wake(place.chunk, run)?;
    Ok(true)
}

/// Puts a resident page of a small chunk aside. The swap's copy of it, if there is one, is given up: kernels differ in
/// what they do with the write protection of a page that moves.
///
/// On error the page is where it was, and private.
pub(crate) fn put_page_aside(vm: &Vm, place: Place, chunk: &mut Chunk, spare: Spare) -> io::Result<()> {
    let Backing::Small(table) = &mut chunk.backing else { return Ok(()) };
    let state = table.get(place.slot);
    if let PageState::Clean(_) = state {
        vm.memory.unprotect(place.chunk, &PageSet::one(place.slot))?;
        table.set(place.slot, PageState::Private);
        forget(vm, [state]);
    }
    rehome(&vm.memory, place.chunk, table, &PageSet::one(place.slot))?;
    vm.memory.set_aside(place.chunk, (place.slot, 1), spare)?;
    table.set(place.slot, PageState::Aside(spare));
    Ok(())
}

/// Notes that a fault has touched page `slot`, before it is answered, and brings back what was aside for it.
pub(crate) fn note_touch(vm: &Vm, place: Place, chunk: &mut Chunk) {
    chunk.evidence = Evidence::None;
    let whole = matches!(chunk.backing, Backing::Aside(_));
    let brought = if whole {
        bring_chunk_back(&vm.memory, place.chunk, chunk).map(|()| true)
    } else {
        bring_page_back(&vm.memory, place, chunk)
    };
    match brought {
        Ok(false) => {}
        Ok(true) => {
            chunk.evidence = Evidence::Used;
            if let Backing::Small(table) = &mut chunk.backing {
                table.recent.insert(place.slot);
            }
            if whole { vm.touches.count_chunk() } else { vm.touches.count_page() }
        }
        Err(error) => {
            tracing::error!(%error, ppn = vm.memory.ppn(place).0, "cannot bring back what was put aside");
        }
    }
}
