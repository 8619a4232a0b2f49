//! Reading page faults and the swap's answers, and serving both.

use std::os::fd::AsFd;

use vmm_sys_util::eventfd::EventFd;

use super::service::serve_waiting;
use crate::address::{PageSet, Place};
use crate::content::{Completion, Swap};
use crate::error::Error;
use crate::memory::Fault;
use crate::page::{Backing, ChunkGuard, PageState, Touch};
use crate::transition::Vm;
use crate::transition::aside::note_touch;
use crate::transition::provide::{Found, find, let_write, make_dirty, populate};
use crate::transition::swap_in::{Settled, arrive, leave};

/// Serves page faults until `stop` is readable. Run it on a thread of its own; two may run side by side.
///
/// This thread waits for nothing but faults and the swap's answers: a fault that the grant does not cover is
/// queued, and whoever makes room serves it; a page in the swap is asked for, and put in place when it comes. It
/// never touches guest memory, where it would wait for itself.
///
/// # Errors
/// [`Error::Uffd`] where faults can no longer be read. Whatever touches absent memory then hangs, so the VM must
/// be stopped.
pub(crate) fn serve_faults(vm: &Vm, stop: &EventFd) -> Result<(), Error> {
    let failed = |source| Error::Uffd { action: "read page faults", source };
    let swap = vm.content.swap().map(AsFd::as_fd);
    loop {
        let ready = vm.memory.wait(stop, swap).map_err(failed)?;
        if ready.stop {
            return Ok(());
        }
        let faults = vm.memory.read_faults().map_err(failed)?;
        faults.into_iter().for_each(|fault| serve_fault(vm, fault));
        // What these faults have asked the swap for is begun without another turn.
        if ready.other || vm.content.swap().is_some_and(Swap::is_queued) {
            settle_swap(vm);
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
    answer(vm, place, chunk, touch);
}

/// Asks for a page that a device is about to use, as a write by the device would, without
/// waiting for it. Does nothing where the page is there.
pub(crate) fn demand(vm: &Vm, place: Place) {
    let chunk = vm.chunk(place.chunk);
    let there = match &chunk.backing {
        Backing::Large => true,
        Backing::Small(table) => table.get(place.slot) == PageState::Private,
        Backing::Empty { .. } | Backing::Aside(_) => false,
    };
    if !there {
        answer(vm, place, chunk, Touch::Write);
    }
}

/// Answers a touch of a page, or queues it.
fn answer(vm: &Vm, place: Place, mut chunk: ChunkGuard<'_>, touch: Touch) {
    note_touch(vm, place, &mut chunk);
    let before = chunk.tally();
    match find(vm, &mut chunk, place.slot, touch) {
        Found::There if touch == Touch::Write => let_write(vm, place),
        Found::There => vm.memory.wake(place),
        // It may have been read ahead until now, and is waited for from now on.
        Found::Coming => {
            vm.record(before, &chunk);
        }
        Found::Protected(copy) => make_dirty(vm, place, &mut chunk, copy),
        Found::Missing(need) => {
            // A statement of its own: the account must be unlocked again before the page is provided.
            let charged = vm.account().charge_or_wait(place, need);
            if let Some(charged) = charged {
                let page = PageSet::one(place.slot);
                populate(vm, place.chunk, &mut chunk, &page, charged, touch);
            }
        }
    }
    drop(chunk);
    // Not all of the charge may have been used; and the store is smaller now if the page was in it.
    serve_waiting(vm);
}

/// Brings page states up to date with what the swap has read and written.
pub(crate) fn settle_swap(vm: &Vm) {
    let Some(swap) = vm.content.swap() else { return };
    // The last first: of pages that were read together the first is the one that somebody waits for. Once it runs it goes on
    // to the others, and would meet each of them on its way, for the price of a fault.
    for completion in swap.completions().into_iter().rev() {
        match completion {
            Completion::Read(read) => match arrive(vm, read) {
                Settled::Served => {}
                Settled::Uncharged => serve_waiting(vm),
                Settled::Lost(error) => {
                    vm.ledger.tell_trouble(error);
                    serve_waiting(vm);
                }
            },
            Completion::Written(written) => {
                leave(vm, written).into_iter().for_each(|error| vm.ledger.tell_trouble(error));
            }
        }
    }
}
