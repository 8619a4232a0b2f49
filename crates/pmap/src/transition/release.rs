//! Pages that the guest gives back, and all of guest memory at a reset.

use std::io;

use plimsoll_units::Pages;

use super::anonymous::replace_by_fresh;
use super::aside::bring_back;
use super::break_up::{break_up, empty_large};
use super::elsewhere::forget;
use super::frames::return_frames;
use super::renew::renew;
use super::vm::Vm;
use crate::address::{ChunkNo, PageSet, Place};
use crate::error::Error;
use crate::page::{Backing, Chunk, PageState, Step, Table};

/// Why the guest gives pages back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// They are in its balloon: it has promised not to touch them until it takes them back.
    Ballooned,
    /// They are free for now (free page reporting): it may touch them at any time.
    Reported,
}

/// Result of a release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReleaseOutcome {
    /// By how much the VM holds less. Breaking up a large chunk also frees its pages that were
    /// never touched, so this can be more than was asked.
    pub freed: Pages,
    /// Pages that stay as they are, because device I/O is in flight on them or the kernel refused
    /// (which is logged). They do not count as ballooned.
    pub busy: Pages,
    /// Pages named that are not guest RAM.
    pub ignored: Pages,
}

impl std::ops::AddAssign for ReleaseOutcome {
    fn add_assign(&mut self, other: Self) {
        self.freed += other.freed;
        self.busy += other.busy;
        self.ignored = self.ignored.saturating_add(other.ignored);
    }
}

/// Releases pages of one chunk; the caller serves waiting faults afterwards. Steps `Release`,
/// `EmptyLarge`, `BreakUp`, `Balloon`, `Collect`, and those of [`renew`].
pub(crate) fn release_in_chunk(vm: &Vm, no: ChunkNo, set: &PageSet, how: Release) -> ReleaseOutcome {
    let mut chunk = vm.chunk(no);
    let busy = chunk.busy().intersection(set);
    let set = set.minus(&busy);
    let mut outcome = ReleaseOutcome { busy: busy.count(), ..ReleaseOutcome::default() };
    if set.is_empty() {
        return outcome;
    }
    let before = chunk.tally();
    let given = give_back(vm, no, &mut chunk, &set);
    return_frames(vm, no, &mut chunk);
    // Now: the chunk may be renewed with what this has freed.
    outcome.freed = vm.record(before, &chunk);
    let before = chunk.tally();
    let mut charged = Pages::ZERO;
    match given {
        Ok(freed) => {
            outcome.freed += freed;
            mark(&mut chunk, &set, how);
            charged = renew(vm, no, &mut chunk);
            chunk.empty_if_uniform();
        }
        Err(error) => {
            tracing::warn!(%error, "pages that the guest gave back stay held");
            outcome.busy += set.count();
        }
    }
    outcome.freed += vm.record(before, &chunk);
    if charged > Pages::ZERO {
        let counted = chunk.tally().backed.saturating_sub(before.backed);
        vm.account().uncharge(charged.saturating_sub(counted));
        outcome.freed = outcome.freed.saturating_sub(counted);
    }
    outcome
}

pub(crate) fn deflate_in_chunk(vm: &Vm, no: ChunkNo, set: &PageSet) {
    let mut chunk = vm.chunk(no);
    let before = chunk.tally();
    if before.ballooned == Pages::ZERO {
        return;
    }
    if let Some(table) = chunk.small_table() {
        let popped = table.among(set, |state| state == PageState::Ballooned);
        table.set_all(&popped, PageState::Absent, Step::Deflate);
        chunk.empty_if_uniform();
    }
    vm.record(before, &chunk);
}

/// Makes `set` absent, and returns by how much the store is smaller. Afterwards the chunk is empty
/// or small; after an error it is as it was, or small.
fn give_back(vm: &Vm, no: ChunkNo, chunk: &mut Chunk, set: &PageSet) -> io::Result<Pages> {
    bring_back(&vm.memory, no, chunk)?;
    if let Backing::Large = chunk.backing {
        if set.is_full() && empty_large(&vm.memory, no, chunk)? {
            return Ok(Pages::ZERO);
        }
        chunk.set_backing(Backing::Small(break_up(&vm.memory, no)?), Step::BreakUp);
        if let Some((first, _)) = set.runs().next() {
            vm.memory.split_huge_page(Place { chunk: no, slot: first });
        }
    }
    if let Backing::Small(table) = &mut chunk.backing {
        return discard_pages(vm, no, table, set);
    }
    Ok(Pages::ZERO)
}

/// Discards the pages of `set`, in runs as long as the set's, and forgets their content elsewhere.
/// They are absent then. Returns by how much the store is smaller.
fn discard_pages(vm: &Vm, no: ChunkNo, table: &mut Table, set: &PageSet) -> io::Result<Pages> {
    let mut freed = Pages::ZERO;
    replace_by_fresh(&vm.memory, no, table, set)?;
    let resident = table.among(set, PageState::is_resident);
    for (first, len) in set.runs() {
        let run = PageSet::span(first, len);
        if !run.intersection(&resident).is_empty() {
            vm.memory.discard(no, (first, len))?;
        }
        let had: Vec<_> = run.iter().map(|slot| table.get(slot)).collect();
        let given_up = table.among(&run, |state| state != PageState::Ballooned);
        table.set_all(&given_up, PageState::Absent, Step::Release);
        if had.iter().any(|state| matches!(state, PageState::Arriving { .. })) {
            // The reads for them will find them absent: threads that wait must ask anew.
            vm.memory.wake_run(no, (first, len));
        }
        freed += forget(vm, had);
    }
    Ok(freed)
}

/// Makes all chunks empty; returns by how much the VM holds less. See
/// [`Pmap::reset`](crate::Pmap::reset). Step `Reset`.
///
/// # Errors
/// [`Error::IoInFlight`] while pages are pinned, with nothing changed; others where the kernel
/// refuses, with the memory as it was.
pub(crate) fn reset(vm: &Vm) -> Result<Pages, Error> {
    let mut chunks = vm.chunks.lock_all();
    let busy = chunks.iter().filter(|chunk| !chunk.busy().is_empty()).count();
    if busy > 0 {
        return Err(Error::IoInFlight { chunks: busy });
    }
    let before: Vec<_> = chunks.iter().map(|chunk| chunk.tally()).collect();
    for (no, chunk) in chunks.iter_mut().enumerate() {
        bring_back(&vm.memory, ChunkNo(no), chunk).map_err(|source| Error::Aside { source })?;
        if let Backing::Small(table) = &mut chunk.backing {
            let renewed = replace_by_fresh(&vm.memory, ChunkNo(no), table, &PageSet::FULL);
            renewed.map_err(|source| Error::Discard { source })?;
        }
        return_frames(vm, ChunkNo(no), chunk);
    }
    vm.memory.arm_all().map_err(|source| Error::Uffd { action: "register guest RAM anew", source })?;
    vm.memory.discard_all().map_err(|source| Error::Discard { source })?;
    let mut freed = Pages::ZERO;
    for (chunk, before) in chunks.iter_mut().zip(before) {
        let backing = chunk.set_backing(Backing::default(), Step::Reset);
        freed += vm.record(before, chunk);
        if let Backing::Small(table) = backing {
            forget(vm, table.states().filter(|state| !matches!(state, PageState::Compressed(_))));
        }
    }
    freed += vm.content.in_store(&vm.ledger, Pages::ZERO, |store| {
        let occupied = store.pages();
        store.clear();
        occupied
    });
    vm.account().forget_waiting();
    // No page depends on the swap any more. The next write shows whether it works now, and no page
    // is lost if it does not.
    vm.content.retry_swap();
    drop(chunks);
    vm.memory.wake_all().map_err(|source| Error::Uffd { action: "wake waiting faults", source })?;
    Ok(freed)
}

/// Marks released pages that are in the balloon, so that its size is known, and when the guest
/// takes a page out of it. Step `Balloon`.
fn mark(chunk: &mut Chunk, set: &PageSet, how: Release) {
    match how {
        Release::Ballooned if set.is_full() && matches!(chunk.backing, Backing::Empty { .. }) => {
            chunk.set_backing(Backing::Empty { ballooned: true, zero: 0 }, Step::Balloon);
        }
        Release::Ballooned => {
            if let Some(table) = chunk.small_table() {
                table.set_all(set, PageState::Ballooned, Step::Balloon);
            }
        }
        Release::Reported => {}
    }
}

/// Forgets the content that pages of a chunk have elsewhere: a device is about to overwrite them.
/// Step `Overwrite`.
pub(crate) fn drop_content(vm: &Vm, no: ChunkNo, set: &PageSet) {
    let mut chunk = vm.chunk(no);
    let before = chunk.tally();
    let Backing::Small(table) = &mut chunk.backing else { return };
    let elsewhere = table.among(set, PageState::is_elsewhere);
    let states: Vec<_> = elsewhere.iter().map(|slot| table.get(slot)).collect();
    table.set_all(&elsewhere, PageState::Absent, Step::Overwrite);
    chunk.empty_if_uniform();
    vm.record(before, &chunk);
    forget(vm, states);
}
