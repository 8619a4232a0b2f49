//! Pages that come back from the swap, and pages that have been written to it.

use std::io;
use std::ops::Range;

use plimsoll_units::Pages;

use super::elsewhere::forget;
use super::vm::Vm;
use crate::address::{Place, SLOTS, Slot};
use crate::content::{Read, SwapSlot, Written};
use crate::error::Error;
use crate::memory::Access;
use crate::page::{Backing, PageState, Step, Table, Touch};

/// Most pages that are read at once, where neighbours in guest memory are neighbours in the swap. A
/// guest that goes on from page to page then waits once instead of eight times, for half as long
/// again. More would push out what the guest uses for what it may never touch.
const READ_AHEAD: Slot = 8;

/// What became of a page that was read from the swap.
pub(crate) enum Settled {
    /// It is in place, or was given back meanwhile.
    Served,
    /// It is in the swap as before, and was uncharged.
    Uncharged,
    /// The same; it cannot be read, and a fault waits for it.
    Lost(Error),
}

/// Starts to read a page, which is charged, from the swap. Reads its neighbours along if the guest
/// has come from one of them, as far as the grant has pages that no fault waits for. Step `Fetch`.
pub(crate) fn fetch(vm: &Vm, place: Place, table: &mut Table, from: SwapSlot, touch: Touch) {
    let Some(swap) = vm.content.swap() else { return };
    let ahead = ReadAhead::of(table, place.slot);
    let spare = vm.account().charge_spare(ahead.pages());
    let run = ahead.first(spare).around(place.slot);
    let owners: Vec<u64> = run.clone().map(|slot| Place { slot, ..place }.index()).collect();
    let mut first = from;
    for slot in run.rev() {
        let PageState::Swapped(from) = table.get(slot) else { continue };
        let touch = if slot == place.slot { touch } else { Touch::ReadAhead };
        table.set(slot, PageState::Arriving { from, touch }, Step::Fetch);
        first = from;
    }
    swap.read(first, &owners);
}

/// Puts a page in place that was read, unless it was given back meanwhile. Steps `Arrive`, `Miss`.
pub(crate) fn arrive(vm: &Vm, read: Read) -> Settled {
    let (place, from) = (Place::of(read.owner), read.slot);
    let mut chunk = vm.chunk(place.chunk);
    let before = chunk.tally();
    let Backing::Small(table) = &mut chunk.backing else { return Settled::Served };
    let touch = match table.get(place.slot) {
        PageState::Arriving { from: awaited, touch } if awaited == from => touch,
        _ => return Settled::Served,
    };
    let write = touch == Touch::Write;
    let access = if write { Access::Full } else { Access::ReadOnly };
    match read.result.map(|content| vm.memory.put(place, &content, access)) {
        Ok(Ok(())) => {
            let state = if write { PageState::Private } else { PageState::Clean(from) };
            table.set(place.slot, state, Step::Arrive);
            table.recent.insert(place.slot);
            vm.record(before, &chunk);
            vm.account().traffic.swapped_in += 1;
            if write {
                forget(vm, [PageState::Swapped(from)]);
            }
            Settled::Served
        }
        // The host has no memory although it granted some, or the process is ending. The thread
        // tries again.
        Ok(Err(error)) => {
            tracing::error!(%error, ppn = vm.memory.ppn(place).0, "cannot put a page in place that was read");
            table.set(place.slot, PageState::Swapped(from), Step::Miss);
            vm.record(before, &chunk);
            vm.memory.wake(place);
            Settled::Uncharged
        }
        // It was read along with another page. If it is needed it is read again; if not, nothing is
        // lost.
        Err(error) if touch == Touch::ReadAhead => {
            tracing::warn!(%error, ppn = vm.memory.ppn(place).0, "a page that was read ahead cannot be read from the swap");
            table.set(place.slot, PageState::Swapped(from), Step::Miss);
            vm.record(before, &chunk);
            vm.memory.wake(place);
            Settled::Uncharged
        }
        Err(source) => {
            table.set(place.slot, PageState::Swapped(from), Step::Miss);
            vm.record(before, &chunk);
            Settled::Lost(Error::SwapRead { ppn: vm.memory.ppn(place), source })
        }
    }
}

/// Notes that a page was written. If it could not be, its content stays in the write buffer until
/// it is touched, and nothing more is swapped out; the first such error since a reset is returned.
/// Step `Written`.
pub(crate) fn leave(vm: &Vm, written: Written) -> Option<Error> {
    let place = Place::of(written.owner);
    let mut chunk = vm.chunk(place.chunk);
    let Backing::Small(table) = &mut chunk.backing else { return None };
    if table.get(place.slot) != PageState::Leaving(written.slot) {
        // It was touched or given back meanwhile.
        return None;
    }
    let source = match &written.result {
        Ok(()) => {
            table.set(place.slot, PageState::Swapped(written.slot), Step::Written);
            return None;
        }
        Err(source) => copy_of(source),
    };
    vm.content.keep_failed_write(written).then_some(Error::SwapWrite { source })
}

fn copy_of(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// How many pages before and after a page lie next to it both in guest memory and in the swap.
#[derive(Clone, Copy, Debug)]
struct ReadAhead {
    before: Slot,
    after: Slot,
}

impl ReadAhead {
    /// All that is worth reading along with page `slot`, which is in the swap. Nothing if no fault
    /// has lately brought in the page before or after it: a guest that jumps about would wait
    /// longer, for pages that it does not want.
    fn of(table: &Table, slot: Slot) -> Self {
        let came_from = |neighbour: Option<Slot>| neighbour.is_some_and(|slot| table.recent.contains(slot));
        if !came_from(slot.checked_sub(1)) && !came_from(Some(slot + 1).filter(|&next| next < SLOTS)) {
            return Self { before: 0, after: 0 };
        }
        let adjacent = |first: Slot| match (table.get(first), table.get(first + 1)) {
            (PageState::Swapped(a), PageState::Swapped(b)) => a.plus(1) == b,
            _ => false,
        };
        let most = READ_AHEAD - 1;
        let mut ahead = Self { before: 0, after: 0 };
        while ahead.after < most && slot + ahead.after + 1 < SLOTS && adjacent(slot + ahead.after) {
            ahead.after += 1;
        }
        while ahead.before + ahead.after < most && slot > ahead.before && adjacent(slot - ahead.before - 1) {
            ahead.before += 1;
        }
        ahead
    }

    fn pages(self) -> Pages {
        Pages((self.before + self.after).into())
    }

    /// As much of it as `most` pages suffice for: the pages behind first.
    fn first(self, most: Pages) -> Self {
        let most = Slot::try_from(most.0).unwrap_or(Slot::MAX);
        let after = self.after.min(most);
        Self { before: self.before.min(most - after), after }
    }

    fn around(self, slot: Slot) -> Range<Slot> {
        slot - self.before..slot + self.after + 1
    }
}
