//! Putting frames in the place of pages with the same content.
//!
//! A page is shared after its content was compared in full with a frame's, under write protection,
//! and found the same: then a private mapping of the frame takes its place (Waldspurger 2002,
//! section 4.2). It stays write-protected, so that a write asks, is charged, and gets a copy of its
//! own.

#[cfg(test)]
mod tests;

use std::os::fd::AsFd;

use plimsoll_units::{FrameNo, Pages};

use super::elsewhere::forget;
use super::vm::Vm;
use crate::address::{ChunkNo, PageSet, Place, Slot};
use crate::content::{MAPPINGS_OF_RUN, Pool, most_for_short_runs};
use crate::memory::{offset, warn_of_mappings};
use crate::page::{Backing, PageState, Step, Table};

/// Shortest run of pages that is worth a mapping when mappings are short.
const LONG_RUN: Slot = 16;

/// Result of sharing pages of one chunk.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Pages that are shared now.
    pub(crate) pages: PageSet,
    /// Pages that were written before they could be protected, and are private.
    own: PageSet,
    /// Pages whose content is not the frame's.
    pub(crate) mismatched: PageSet,
    /// By how much the VM holds less.
    pub(crate) freed: Pages,
}

/// Neighbouring pages with neighbouring frames: one mapping.
struct Run {
    slot: Slot,
    frame: FrameNo,
    len: Slot,
}

/// Replaces resident pages of a small chunk by frames with the same content. Step `Share`.
pub(crate) fn share_in_chunk(vm: &Vm, pool: &Pool, no: ChunkNo, pairs: &[(Slot, FrameNo)]) -> Outcome {
    let mut chunk = vm.chunk(no);
    let before = chunk.tally();
    let busy = chunk.busy();
    let Backing::Small(table) = &mut chunk.backing else { return Outcome::default() };
    let usable = table.pages(PageState::is_resident).minus(&busy);
    let usable = |&(slot, frame): &(Slot, FrameNo)| usable.contains(slot) && pool.view.has(frame);
    let mut runs = runs(pairs.iter().copied().filter(usable));
    let mappings = vm.account().mappings();
    keep_what_fits(&mut runs, mappings, vm.frames.most_mappings());
    let mut shared = compare_and_map(vm, pool, no, table, &runs);
    let gone = shared.pages.union(&shared.own);
    let copies: Vec<_> = gone.iter().map(|slot| table.get(slot)).collect();
    table.set_all(&shared.own, PageState::Private, Step::Share);
    for run in &runs {
        for (slot, frame) in (run.slot..run.slot + run.len).zip(run.frame.0..) {
            if shared.pages.contains(slot) {
                table.set(slot, PageState::Shared(FrameNo(frame)), Step::Share);
            }
        }
    }
    forget(vm, copies);
    chunk.empty_if_uniform();
    shared.freed = vm.record(before, &chunk);
    let mut account = vm.account();
    account.sharing.merged += shared.pages.count().0;
    account.sharing.mismatched += shared.mismatched.count().0;
    drop(account);
    vm.memory.wake_hull(no, &shared.pages);
    shared
}

/// Maps frames over pages with the same content. The pages keep their states; those that were
/// overlaid, or are now, are marked.
fn compare_and_map(vm: &Vm, pool: &Pool, no: ChunkNo, table: &mut Table, runs: &[Run]) -> Outcome {
    let all = runs.iter().fold(PageSet::EMPTY, |set, run| set.union(&PageSet::span(run.slot, run.len)));
    let dirty = table.unguarded(&all);
    if let Err(error) = vm.memory.protect(no, &dirty) {
        tracing::warn!(%error, "pages cannot be write-protected and are not shared");
        vm.memory.unprotect(no, &dirty).ok();
        return Outcome::default();
    }
    let mut same = Vec::new();
    for run in runs {
        let pages =
            (run.slot..run.slot + run.len).zip(run.frame.0..).map(|(slot, frame)| (slot, FrameNo(frame)));
        let at = |slot| Place { chunk: no, slot };
        same.extend(pages.filter(|&(slot, frame)| vm.memory.equals(at(slot), &pool.view, frame)));
    }
    let mismatched = all.minus(&same.iter().map(|&(slot, _)| slot).collect());
    let mapped = overlay(vm, pool, no, table, same);
    // If the whole chunk was protected in one call, it is unprotected in one.
    let rest = if dirty == PageSet::FULL { dirty } else { dirty.minus(&mapped) };
    let own = guard(vm, no, &mapped, &rest);
    let pages = mapped.minus(&own);
    table.overlaid = table.overlaid.minus(&pages).union(&own);
    Outcome { pages, own, mismatched, freed: Pages::ZERO }
}

/// Maps frames over pages; returns the pages that were mapped.
fn overlay(vm: &Vm, pool: &Pool, no: ChunkNo, table: &mut Table, same: Vec<(Slot, FrameNo)>) -> PageSet {
    let mut mapped = PageSet::EMPTY;
    for run in runs(same.into_iter()) {
        match vm.memory.overlay(no, (run.slot, run.len), pool.fd.as_fd(), run.frame) {
            Ok(()) => {
                mapped = mapped.union(&PageSet::span(run.slot, run.len));
                table.extra_mappings.put(run.slot, run.len);
            }
            Err(error) => {
                warn_of_mappings(&error);
                break;
            }
        }
    }
    mapped
}

/// Write-protects the frames that were just mapped, and unprotects the `rest`; returns the pages
/// that were written in between: those are the guest's own copies.
fn guard(vm: &Vm, no: ChunkNo, mapped: &PageSet, rest: &PageSet) -> PageSet {
    let guarded = vm.memory.arm_pages(no, mapped);
    let guarded =
        guarded.and_then(|()| vm.memory.unprotect(no, rest)).and_then(|()| vm.memory.protect(no, mapped));
    let own = guarded.and_then(|()| vm.memory.own(no, mapped));
    let own = match own {
        Ok(own) => own,
        Err(error) => {
            tracing::error!(%error, "frames cannot be write-protected, and are copied");
            vm.memory.unprotect(no, &rest.union(mapped)).ok();
            mapped.iter().for_each(|slot| vm.memory.touch(offset(Place { chunk: no, slot })));
            *mapped
        }
    };
    if let Err(error) = vm.memory.unprotect(no, &own) {
        tracing::error!(%error, "pages stay write-protected");
    }
    own
}

/// Joins neighbours, which come in order, to runs.
fn runs(pairs: impl Iterator<Item = (Slot, FrameNo)>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (slot, frame) in pairs {
        match runs.last_mut() {
            Some(run)
                if run.slot + run.len == slot && run.frame.0.checked_add(run.len.into()) == Some(frame.0) =>
            {
                run.len += 1;
            }
            _ => runs.push(Run { slot, frame, len: 1 }),
        }
    }
    runs
}

/// Keeps those of `runs` for which there are mappings, if `mappings` of at most `most` are taken.
/// The last quarter is for long runs.
fn keep_what_fits(runs: &mut Vec<Run>, mappings: u64, most: u64) {
    if mappings + MAPPINGS_OF_RUN * runs.len() as u64 > most_for_short_runs(most) {
        runs.retain(|run| run.len >= LONG_RUN);
    }
    let fit = most.saturating_sub(mappings) / MAPPINGS_OF_RUN;
    runs.truncate(usize::try_from(fit).unwrap_or(usize::MAX));
}
