//! What a touch brings: pages of zeros, content that was elsewhere, large chunks.

use plimsoll_units::Pages;

use super::elsewhere::{content_of, forget};
use super::frames::let_frames_go;
use super::swap_in::fetch;
use super::unshare::break_page;
use super::vm::Vm;
use crate::account::Need;
use crate::address::{ChunkNo, PageSet, Place, Slot};
use crate::content::SwapSlot;
use crate::memory::{Access, warn_of_mappings};
use crate::page::{Backing, Chunk, Evidence, PageState, Table, Touch};

/// What a fault finds where it struck.
pub(crate) enum Found {
    /// The page, for somebody has provided it since the fault was sent.
    There,
    /// The page, write-protected because the swap holds the same; and it is to be written.
    Protected(SwapSlot),
    /// A page that is being read from the swap: its arrival wakes who waits.
    Coming,
    /// Nothing, until this much is charged.
    Missing(Need),
}

/// Provides `pages` of a chunk with the `charged` pages, as far as they go, and wakes who waits for them. Queues
/// the pages for which they do not suffice, and uncharges what is not used.
pub(crate) fn populate(
    vm: &Vm,
    no: ChunkNo,
    chunk: &mut Chunk,
    pages: &PageSet,
    charged: Pages,
    touch: Touch,
) {
    let before = chunk.tally();
    let mut left = charged;
    let may_grow = matches!(chunk.backing, Backing::Empty { ballooned: false, .. });
    if may_grow && charged >= Pages::CHUNK && enlarge(vm, no, chunk) {
        left -= Pages::CHUNK;
    } else if let Some(table) = chunk.small_table() {
        pages.iter().for_each(|slot| provide_page(vm, Place { chunk: no, slot }, table, &mut left, touch));
        let_frames_go(vm, no, chunk);
        chunk.empty_if_uniform();
    } else {
        pages.iter().for_each(|slot| vm.memory.wake(Place { chunk: no, slot }));
    }
    let mut account = vm.account();
    account.changed(before, chunk.tally());
    account.uncharge(left);
    account.arrived(charged - left);
    // A fault may have passed the queue, if it came just when there was room again.
    account.served(no, || chunk.served());
}

/// Lets the kernel serve an empty chunk from now on; false where it will not, because the VM has too many
/// mappings already. Its first touch gets a huge page if there is one.
fn enlarge(vm: &Vm, no: ChunkNo, chunk: &mut Chunk) -> bool {
    match vm.memory.disarm(no) {
        Ok(()) => {
            chunk.backing = Backing::Large;
            chunk.evidence = Evidence::Used;
            true
        }
        Err(error) => {
            warn_of_mappings(&error);
            false
        }
    }
}

/// Provides one page of a small chunk, for one page of `left`.
pub(crate) fn provide_page(vm: &Vm, place: Place, table: &mut Table, left: &mut Pages, touch: Touch) {
    let slot = place.slot;
    let state = table.get(slot);
    match state {
        PageState::Private | PageState::Clean(_) | PageState::Aside(_) => return vm.memory.wake(place),
        PageState::Arriving { .. } => return,
        _ if *left == Pages::ZERO => return vm.account().wait(place, Need::Page),
        PageState::Swapped(from) => {
            *left -= Pages(1);
            return fetch(vm, place, table, from, touch);
        }
        PageState::Shared(frame) => {
            if break_page(vm, place, table, frame) {
                *left -= Pages(1);
            }
            return;
        }
        PageState::Absent
        | PageState::Zero
        | PageState::Ballooned
        | PageState::Compressed(_)
        | PageState::Leaving(_) => {}
    }
    let provided = match content_of(vm, state) {
        Some(content) => vm.memory.put(place, &content, Access::Full),
        // A page that is only read costs no memory until it is written; it is charged all the same, because the
        // kernel does not ask when it is.
        None if touch == Touch::Read => vm.memory.map_zero(place),
        None => vm.memory.fill(place),
    };
    match provided {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            tracing::error!(ppn = vm.memory.ppn(place).0, "a page thought absent was there");
            vm.memory.unprotect(place.chunk, &PageSet::one(slot)).ok();
        }
        // The host has no memory although it granted some, or the process is ending. The thread tries again.
        Err(error) => {
            tracing::error!(%error, ppn = vm.memory.ppn(place).0, "cannot provide a page");
            return vm.memory.wake(place);
        }
    }
    table.set(slot, PageState::Private);
    table.recent.insert(slot);
    *left -= Pages(1);
    match state {
        PageState::Compressed(_) => vm.account().traffic.unzipped += 1,
        PageState::Zero => {
            table.broken.insert(slot);
            vm.account().sharing.broken += 1;
        }
        _ => {}
    }
    forget(vm, [state]);
}

pub(crate) fn find(vm: &Vm, chunk: &mut Chunk, slot: Slot, touch: Touch) -> Found {
    match &mut chunk.backing {
        // What is still aside could not be brought back: the touch tries again.
        Backing::Large | Backing::Aside(_) => Found::There,
        Backing::Empty { ballooned: false, .. } if vm.memory.huge_pages() => Found::Missing(Need::Chunk),
        // One page of a ballooned chunk was touched: the others stay in the balloon.
        Backing::Empty { .. } => Found::Missing(Need::Page),
        Backing::Small(table) => match table.get(slot) {
            PageState::Private | PageState::Aside(_) => Found::There,
            PageState::Clean(copy) if touch == Touch::Write => Found::Protected(copy),
            PageState::Clean(_) => Found::There,
            PageState::Arriving { from, touch: before } => {
                table.set(slot, PageState::Arriving { from, touch: touch.max(before) });
                Found::Coming
            }
            PageState::Shared(_) if touch == Touch::Read => Found::There,
            PageState::Absent
            | PageState::Zero
            | PageState::Shared(_)
            | PageState::Ballooned
            | PageState::Compressed(_)
            | PageState::Leaving(_)
            | PageState::Swapped(_) => Found::Missing(Need::Page),
        },
    }
}

/// A page whose copy in the swap is as good as it is about to be written: from now on it is not.
pub(crate) fn make_dirty(vm: &Vm, place: Place, chunk: &mut Chunk, copy: SwapSlot) {
    let Backing::Small(table) = &mut chunk.backing else { return };
    if let Err(error) = vm.memory.unprotect(place.chunk, &PageSet::one(place.slot)) {
        tracing::error!(%error, ppn = vm.memory.ppn(place).0, "cannot let a page be written");
        return vm.memory.wake(place);
    }
    table.set(place.slot, PageState::Private);
    forget(vm, [PageState::Clean(copy)]);
}

/// A page is there that may be written, and yet somebody waits to: another fault was faster, or it could not be unprotected
/// when that was due. Only waking would then have it ask for ever.
pub(crate) fn let_write(vm: &Vm, place: Place) {
    // What is not armed cannot be protected.
    if vm.memory.unprotect(place.chunk, &PageSet::one(place.slot)).is_err() {
        vm.memory.wake(place);
    }
}
