//! Chunks of which nothing is left, and that consist of several mappings: they become one again.

use plimsoll_units::Pages;

use super::break_up::break_up;
use super::vm::Vm;
use crate::address::{ChunkNo, PageSet, SLOTS};
use crate::page::{Backing, Chunk, ExtraMappings, PageState, Step};

/// Puts one fresh mapping in the place of such a chunk, so that it can be empty, and returns the
/// pages that are charged for it. The caller uncharges those that the chunk does not count then,
/// after it has recorded the chunk's new tally.
///
/// The fresh mapping is not armed for a moment. Pages that were not given back may be the guest's
/// (untouched ones, dropped zeros), and the kernel serves what the guest writes to them then. So
/// nothing is discarded: all pages are charged before, as those of a large chunk are, and the pages
/// that the guest has touched are private afterwards. Without room for them in the grant, or with
/// device I/O in flight, the chunk stays as it is.
pub(crate) fn renew(vm: &Vm, no: ChunkNo, chunk: &mut Chunk) -> Pages {
    let busy = !chunk.busy().is_empty();
    let Backing::Small(table) = &mut chunk.backing else { return Pages::ZERO };
    if busy || table.is_empty().is_none() || table.extra_mappings.is_empty() {
        return Pages::ZERO;
    }
    let charged = vm.account().charge_spare(Pages::CHUNK);
    if charged < Pages::CHUNK {
        return charged;
    }
    if let Err(error) = vm.memory.put_blank(no, (0, SLOTS)) {
        tracing::debug!(%error, "a chunk of which nothing is left stays small");
        return charged;
    }
    (table.overlaid, table.extra_mappings) = (PageSet::EMPTY, ExtraMappings::default());
    match break_up(&vm.memory, no) {
        Ok(found) => {
            let touched = found.pages(PageState::is_resident);
            table.set_all(&touched, PageState::Private, Step::Provide);
        }
        Err(error) => {
            tracing::warn!(%error, "a chunk of which nothing is left is left to the kernel");
            chunk.set_backing(Backing::Large, Step::Promote);
        }
    }
    // Faults that waited in the old mappings ask anew.
    vm.memory.wake_run(no, (0, SLOTS));
    charged
}
