//! Reading page faults and the swap's answers, and serving both.

use std::os::fd::AsFd;
use std::time::Duration;

use plimsoll_sys::Event;
use plimsoll_units::Pages;

use super::service::serve_waiting;
use crate::address::{PageSet, Place, Slot};
use crate::content::{Completion, Swap};
use crate::error::Error;
use crate::memory::Fault;
use crate::page::{Backing, ChunkGuard, PageState, Touch};
use crate::transition::Vm;
use crate::transition::provide::{Lookup, find, let_write, make_dirty, populate, populate_run};
use crate::transition::swap_in::{Settled, arrive, leave};
use crate::transition::touch::note_touch;

/// How long the thread waits for a signal while the swap has I/O in flight. Then it looks whether
/// some has ended all the same: a signal that is lost must not leave the guest waiting for ever.
const SILENCE: Duration = Duration::from_secs(1);

/// Serves page faults until `stop` is readable: see
/// [`Pmap::serve_faults`](crate::Pmap::serve_faults).
///
/// The thread waits for nothing but faults and the swap's answers. A fault that the grant does not
/// cover is queued, and the driver that makes room serves it. A page in the swap is asked for, and
/// put in place when it comes. The thread touches no page whose fault it would have to serve
/// itself.
///
/// # Errors
/// [`Error::Uffd`] where faults can no longer be read. Whatever touches absent memory then hangs,
/// so the VM must be stopped.
pub(crate) fn serve_faults(vm: &Vm, stop: &Event) -> Result<(), Error> {
    let failed = |source| Error::Uffd { action: "read page faults", source };
    let swap = vm.content.swap().map(AsFd::as_fd);
    loop {
        let limit = vm.content.swap().filter(|swap| swap.is_busy()).map(|_| SILENCE);
        let ready = vm.memory.wait(stop, swap, limit).map_err(failed)?;
        if ready.stop {
            return Ok(());
        }
        let faults = vm.memory.read_faults().map_err(failed)?;
        faults.into_iter().for_each(|fault| serve_fault(vm, fault));
        // Begins what these faults have asked of the swap without another round.
        if ready.other || ready.late || vm.content.swap().is_some_and(Swap::is_queued) {
            let ended = settle_swap(vm);
            if ready.late && ended > 0 {
                tracing::warn!(ended, "I/O of the swap has ended without a signal");
            }
        }
    }
}

/// Answers one fault, or queues it.
fn serve_fault(vm: &Vm, fault: Fault) {
    let Some(place) = vm.memory.place_of(fault.address) else {
        tracing::error!(address = fault.address, "a page fault outside guest RAM");
        return;
    };
    let touch = if fault.write { Touch::Write } else { Touch::Read };
    let chunk = vm.chunk(place.chunk);
    let following = if fault.write { chunk.following(place.slot) } else { 0 };
    answer(vm, place, chunk, touch, following);
}

/// Asks for a page that a device is about to use, as a write by the device would, without waiting
/// for it. Does nothing if the page is present.
pub(crate) fn demand(vm: &Vm, place: Place) {
    let chunk = vm.chunk(place.chunk);
    let there = match &chunk.backing {
        Backing::Large => true,
        Backing::Small(table) => table.get(place.slot) == PageState::Private,
        Backing::Empty { .. } | Backing::Aside(_) => false,
    };
    if !there {
        // The device asks for each page that it needs.
        answer(vm, place, chunk, Touch::Write, 0);
    }
}

/// Answers a touch of a page, or queues it. Up to `following` absent pages behind it come with it.
fn answer(vm: &Vm, place: Place, mut chunk: ChunkGuard<'_>, touch: Touch, following: Slot) {
    note_touch(vm, place, &mut chunk);
    let before = chunk.tally();
    match find(vm, &mut chunk, place.slot, touch) {
        Lookup::Present if touch == Touch::Write => let_write(vm, place),
        Lookup::Present => vm.memory.wake(place),
        // The page may have been read ahead until now, and a fault waits for it from now on.
        Lookup::Arriving => {
            vm.record(before, &chunk);
        }
        Lookup::Protected(copy) => make_dirty(vm, place, &mut chunk, copy),
        Lookup::Missing(need) => {
            // A statement of its own: the guard of the account must be gone before the page is
            // provided.
            let charged = vm.account().charge_or_wait(place, need);
            if let Some(charged) = charged {
                let spare = vm.account().charge_spare(Pages(following.into()));
                if spare > Pages::ZERO {
                    populate_run(vm, place, &mut chunk, charged + spare);
                } else {
                    let page = PageSet::one(place.slot);
                    populate(vm, place.chunk, &mut chunk, &page, charged, touch);
                }
            }
        }
    }
    drop(chunk);
    // The page may have needed less than was charged, and the store is smaller if it was in there.
    serve_waiting(vm);
}

/// Applies what the swap has read and written. Returns for how many pages.
pub(crate) fn settle_swap(vm: &Vm) -> usize {
    let Some(swap) = vm.content.swap() else { return 0 };
    let completions = swap.completions();
    let ended = completions.len();
    // The last one first: of pages that were read together, the first is the one that a fault waits
    // for. Once its thread runs, it goes on to the others, and would meet each of them on its way,
    // for the price of a fault.
    for completion in completions.into_iter().rev() {
        match completion {
            Completion::Read(read) => match arrive(vm, read) {
                Settled::Served => {}
                Settled::Uncharged => serve_waiting(vm),
                Settled::Lost(error) => {
                    vm.ledger.report_trouble(error);
                    serve_waiting(vm);
                }
            },
            Completion::Written(written) => {
                leave(vm, written).into_iter().for_each(|error| vm.ledger.report_trouble(error));
            }
        }
    }
    ended
}
