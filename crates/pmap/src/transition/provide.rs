//! Pages that a touch brings in: zeros, content that was elsewhere, large chunks.

use plimsoll_units::Pages;

use super::elsewhere::{content_of, forget};
use super::frames::return_frames;
use super::swap_in::fetch;
use super::unshare::break_page;
use super::vm::Vm;
use crate::account::{Need, Tally};
use crate::address::{ChunkNo, PageSet, Place, Slot};
use crate::content::SwapSlot;
use crate::memory::{Access, warn_of_mappings};
use crate::page::{Activity, Backing, Chunk, PageState, Step, Table, Touch};

/// What a fault finds at its page.
pub(crate) enum Lookup {
    /// The page: it was provided since the fault was sent.
    Present,
    /// The page, write-protected because the swap holds the same; and the fault is a write.
    Protected(SwapSlot),
    /// A page that is being read from the swap. Its arrival wakes the threads that wait.
    Arriving,
    /// Nothing: this much has to be charged first.
    Missing(Need),
}

/// Provides `pages` of a chunk, as far as the `charged` pages go, and wakes the threads that wait
/// for them. Queues the pages for which they do not suffice, and uncharges what is not used. Steps
/// `Enlarge`, `Split`, `Provide`, `Fetch`, `Unshare`.
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
        return_frames(vm, no, chunk);
        chunk.empty_if_uniform();
    } else {
        pages.iter().for_each(|slot| vm.memory.wake(Place { chunk: no, slot }));
    }
    settle_charge(vm, no, chunk, before, charged, left);
}

/// Records the change of a chunk from `before`, and uncharges what is `left` of the `charged`
/// pages.
fn settle_charge(vm: &Vm, no: ChunkNo, chunk: &Chunk, before: Tally, charged: Pages, left: Pages) {
    let mut account = vm.account();
    account.changed(before, chunk.tally());
    account.uncharge(left);
    account.arrived(charged - left);
    // A later fault may have been served before the queue, if it came just when there was room
    // again.
    account.served(no, || chunk.served());
}

/// Provides an absent page of a small chunk that is written to, and absent pages behind it, as far
/// as the `charged` pages go, with one call; uncharges what is not used. Step `Provide`.
pub(crate) fn populate_run(vm: &Vm, place: Place, chunk: &mut Chunk, charged: Pages) {
    let before = chunk.tally();
    let provided = match &mut chunk.backing {
        Backing::Small(table) => fill_run(vm, place, table, charged),
        Backing::Empty { .. } | Backing::Large | Backing::Aside(_) => Pages::ZERO,
    };
    if provided == Pages::ZERO {
        // The host may have no memory at the moment: one page is asked for again.
        return populate(vm, place.chunk, chunk, &PageSet::one(place.slot), charged, Touch::Write);
    }
    settle_charge(vm, place.chunk, chunk, before, charged, charged - provided);
}

fn fill_run(vm: &Vm, place: Place, table: &mut Table, pages: Pages) -> Pages {
    let wanted = Slot::try_from(pages.0).unwrap_or(Slot::MAX);
    let Ok(filled) = vm.memory.fill(place, wanted) else { return Pages::ZERO };
    for slot in place.slot..place.slot + filled {
        table.set(slot, PageState::Private, Step::Provide);
        table.recent.insert(slot);
    }
    Pages(filled.into())
}

/// Has the kernel serve an empty chunk by itself; its first touch gets a huge page if there is one.
/// False if the kernel refuses, because the process has too many mappings. Step `Enlarge`.
fn enlarge(vm: &Vm, no: ChunkNo, chunk: &mut Chunk) -> bool {
    match vm.memory.disarm(no) {
        Ok(()) => {
            chunk.set_backing(Backing::Large, Step::Enlarge);
            chunk.activity = Activity::Used;
            true
        }
        Err(error) => {
            warn_of_mappings(&error);
            false
        }
    }
}

/// Provides one page of a small chunk, for one page of `left`. Steps `Provide`, `Fetch`, `Unshare`.
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
        // A page that is only read costs no memory until it is written. It is charged all the same,
        // because the kernel does not ask before it provides memory for the write.
        None if touch == Touch::Read => vm.memory.map_zero(place),
        None => vm.memory.fill(place, 1).map(drop),
    };
    match provided {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            tracing::error!(ppn = vm.memory.ppn(place).0, "a page thought absent was there");
            vm.memory.unprotect(place.chunk, &PageSet::one(slot)).ok();
        }
        // The host has no memory although it granted some, or the process is ending. The thread
        // tries again.
        Err(error) => {
            tracing::error!(%error, ppn = vm.memory.ppn(place).0, "cannot provide a page");
            return vm.memory.wake(place);
        }
    }
    table.set(slot, PageState::Private, Step::Provide);
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

pub(crate) fn find(vm: &Vm, chunk: &mut Chunk, slot: Slot, touch: Touch) -> Lookup {
    match &mut chunk.backing {
        // A chunk that is still aside could not be brought back: the touch tries again.
        Backing::Large | Backing::Aside(_) => Lookup::Present,
        Backing::Empty { ballooned: false, .. } if vm.memory.huge_pages() => Lookup::Missing(Need::Chunk),
        // One page of a ballooned chunk was touched: the others stay in the balloon.
        Backing::Empty { .. } => Lookup::Missing(Need::Page),
        Backing::Small(table) => match table.get(slot) {
            PageState::Private | PageState::Aside(_) => Lookup::Present,
            PageState::Clean(copy) if touch == Touch::Write => Lookup::Protected(copy),
            PageState::Clean(_) => Lookup::Present,
            PageState::Arriving { from, touch: before } => {
                table.set(slot, PageState::Arriving { from, touch: touch.max(before) }, Step::Await);
                Lookup::Arriving
            }
            PageState::Shared(_) if touch == Touch::Read => Lookup::Present,
            PageState::Absent
            | PageState::Zero
            | PageState::Shared(_)
            | PageState::Ballooned
            | PageState::Compressed(_)
            | PageState::Leaving(_)
            | PageState::Swapped(_) => Lookup::Missing(Need::Page),
        },
    }
}

/// Lets a clean page be written: its copy in the swap is given up. Step `Dirty`.
pub(crate) fn make_dirty(vm: &Vm, place: Place, chunk: &mut Chunk, copy: SwapSlot) {
    let Backing::Small(table) = &mut chunk.backing else { return };
    if let Err(error) = vm.memory.unprotect(place.chunk, &PageSet::one(place.slot)) {
        tracing::error!(%error, ppn = vm.memory.ppn(place).0, "cannot let a page be written");
        return vm.memory.wake(place);
    }
    table.set(place.slot, PageState::Private, Step::Dirty);
    forget(vm, [PageState::Clean(copy)]);
}

/// Lets a thread write a page that is present and may be written. It waits although another fault
/// was faster, or because unprotecting the page failed when that was due. If it were only woken, it
/// would ask for ever.
pub(crate) fn let_write(vm: &Vm, place: Place) {
    // A page that is not armed cannot be protected.
    if vm.memory.unprotect(place.chunk, &PageSet::one(place.slot)).is_err() {
        vm.memory.wake(place);
    }
}
