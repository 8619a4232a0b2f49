//! Giving back the frames of pages that are not shared any more.

use plimsoll_units::{FrameNo, PageNo, ReturnReason};

use super::vm::Vm;
use crate::address::{ChunkNo, PageSet, page_no};
use crate::page::{Backing, Chunk, Table};

/// Gives back the frames that pages of a chunk had, except those that a device may be reading.
pub(crate) fn return_frames(vm: &Vm, no: ChunkNo, chunk: &mut Chunk) {
    let busy = chunk.busy();
    if let Backing::Small(table) = &mut chunk.backing {
        return_unused_frames(vm, no, table, &busy);
    }
}

/// Gives back frames that pages of a chunk had, except those of `busy` pages: a device may be
/// reading them.
pub(crate) fn return_unused_frames(vm: &Vm, no: ChunkNo, table: &mut Table, busy: &PageSet) {
    if table.unreturned.is_empty() {
        return;
    }
    let gone = table.unreturned.extract_if(.., |(slot, _)| !busy.contains(*slot));
    let gone: Vec<_> = gone.map(|(slot, frame)| (page_no(no, slot), frame)).collect();
    if let (Some(pool), false) = (vm.frames.pool(), gone.is_empty()) {
        pool.source.give_back(&gone, ReturnReason::Unused);
    }
}

/// The frames that pages are mappings of, or had and have not given back yet.
pub(crate) fn references(vm: &Vm) -> Vec<(PageNo, FrameNo)> {
    let mut references = Vec::new();
    for no in vm.memory.layout().chunk_numbers() {
        if let Backing::Small(table) = &vm.chunk(no).backing {
            let shared = (0..).zip(table.states()).filter_map(|(slot, state)| Some((slot, state.frame()?)));
            let all = shared.chain(table.unreturned.iter().copied());
            references.extend(all.map(|(slot, frame)| (page_no(no, slot), frame)));
        }
    }
    references
}
