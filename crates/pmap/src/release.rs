use std::io;

use plimsoll_units::Pages;

use crate::chunk::{Backing, Chunk};
use crate::error::Error;
use crate::host_range::{CHUNK, PAGE};
use crate::layout::{ChunkNo, Place, PpnRange};
use crate::mutation::Mutation;
use crate::page_set::PageSet;
use crate::pmap::Pmap;
use crate::sync::atomic::Ordering;
use crate::table::{PageState, Table};

/// Why the guest gives pages back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// They are in its balloon: it has promised not to touch them until it takes them back.
    Ballooned,
    /// They are free for now (free page reporting): it may touch them at any time.
    Reported,
}

/// What became of pages that the guest gave back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReleaseOutcome {
    /// By how much the VM holds less. Breaking up a large chunk also frees its pages that were never touched, so
    /// this can be more than was asked.
    pub freed: Pages,
    /// Pages that stay as they are, because device I/O is in flight on them or because the kernel refused (which is
    /// logged). They are not counted as ballooned.
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

impl Pmap {
    /// Takes back pages that the guest does not need. They read as zeros when they are next touched.
    ///
    /// `ranges` come from the guest: any order, overlaps and nonsense are fine. They are sorted into chunks first; a
    /// whole chunk is given back at once, part of a large one breaks it up. Whoever waits for a grant is served from
    /// what this frees.
    pub fn release(&self, ranges: &[PpnRange], how: Release) -> ReleaseOutcome {
        let (sets, ignored) = self.layout.by_chunk(ranges);
        let mut outcome = ReleaseOutcome { ignored, ..ReleaseOutcome::default() };
        sets.for_each(|(no, set)| outcome += self.release_in_chunk(no, &set, how));
        self.serve_freed(outcome.freed);
        outcome
    }

    /// Notes that the guest has taken pages out of its balloon. They stay absent until they are touched. Pages that
    /// were not in the balloon are left alone.
    pub fn deflate(&self, ranges: &[PpnRange]) {
        let (sets, _outside) = self.layout.by_chunk(ranges);
        sets.for_each(|(no, set)| self.deflate_in_chunk(no, &set));
    }

    /// Gives all guest memory back, for a reboot: everything is absent, the balloon empty, and the next touch of any
    /// page finds zeros. Returns by how much the VM holds less. The grant stays. Swap space that could not be written is tried
    /// anew.
    ///
    /// Stop the vCPUs first, and let device I/O end. Faults that still wait are woken to be taken anew.
    ///
    /// # Errors
    /// [`Error::IoInFlight`] while pages are pinned, with nothing changed; [`Error::Uffd`] and [`Error::Discard`]
    /// where the kernel refuses, with the memory as it was, in which case the VM must not go on.
    pub fn reset(&self) -> Result<Pages, Error> {
        let mut chunks = self.all_chunks();
        let busy = chunks.iter().filter(|chunk| !chunk.busy().is_empty()).count();
        if busy > 0 {
            return Err(Error::IoInFlight { chunks: busy });
        }
        let before: Vec<_> = chunks.iter().map(|chunk| chunk.tally()).collect();
        for (no, chunk) in chunks.iter_mut().enumerate() {
            self.bring_back(ChunkNo(no), chunk).map_err(|source| Error::Aside { source })?;
            if let Backing::Small(table) = &mut chunk.backing {
                let renewed = self.renew(ChunkNo(no), table, &PageSet::FULL);
                renewed.map_err(|source| Error::Discard { source })?;
            }
            self.let_frames_go(ChunkNo(no), chunk);
        }
        let len = self.mapping.len();
        let all = self.mapping.range(0, len);
        self.uffd.arm(all).map_err(|source| Error::Uffd { action: "register guest RAM anew", source })?;
        self.mapping.discard(0, len).map_err(|source| Error::Discard { source })?;
        let mut freed = Pages::ZERO;
        for (chunk, before) in chunks.iter_mut().zip(before) {
            let backing = std::mem::take(&mut chunk.backing);
            freed += self.record(before, chunk);
            if let Backing::Small(table) = backing {
                self.forget(table.states().filter(|state| !matches!(state, PageState::Compressed(_))));
            }
        }
        freed += self.in_store(Pages::ZERO, |store| {
            let occupied = store.pages();
            store.clear();
            occupied
        });
        self.account().forget_waiting();
        // Nothing depends on the swap any more. Whether it works now the next write shows, and no page is lost if it does not.
        self.swap_failed.store(false, Ordering::Relaxed);
        drop(chunks);
        self.uffd.wake(all).map_err(|source| Error::Uffd { action: "wake waiting faults", source })?;
        self.serve_freed(freed);
        Ok(freed)
    }

    /// Releases pages of one chunk. The caller serves those who wait afterwards.
    pub(crate) fn release_in_chunk(&self, no: ChunkNo, set: &PageSet, how: Release) -> ReleaseOutcome {
        let mut chunk = self.chunk(no);
        let busy = chunk.busy().intersection(set);
        let set = set.minus(&busy);
        let mut outcome = ReleaseOutcome { busy: busy.count(), ..ReleaseOutcome::default() };
        if set.is_empty() {
            return outcome;
        }
        let before = chunk.tally();
        let given = self.give_back(no, &mut chunk, &set);
        self.let_frames_go(no, &mut chunk);
        match given {
            Ok(freed) => {
                outcome.freed = freed;
                mark(&mut chunk, &set, how);
                self.level(no, &mut chunk);
                chunk.empty_if_uniform();
            }
            Err(error) => {
                tracing::warn!(%error, "pages that the guest gave back stay held");
                outcome.busy += set.count();
            }
        }
        outcome.freed += self.record(before, &chunk);
        outcome
    }

    pub(crate) fn deflate_in_chunk(&self, no: ChunkNo, set: &PageSet) {
        let mut chunk = self.chunk(no);
        let before = chunk.tally();
        if before.ballooned == Pages::ZERO {
            return;
        }
        if let Some(table) = chunk.small_table() {
            let popped = table.among(set, |state| state == PageState::Ballooned);
            table.set_all(&popped, PageState::Absent);
            chunk.empty_if_uniform();
        }
        self.record(before, &chunk);
    }

    /// Makes `set` absent for the kernel, and returns by how much the store is smaller. Afterwards the chunk is empty or
    /// small; on error it is as it was, or small.
    fn give_back(&self, no: ChunkNo, chunk: &mut Chunk, set: &PageSet) -> io::Result<Pages> {
        if matches!(chunk.backing, Backing::Aside(_)) && self.mutations.has(Mutation::StrandedAside) {
            chunk.backing = Backing::Large;
        }
        self.bring_back(no, chunk)?;
        if let Backing::Large = chunk.backing {
            if set.is_full() && self.empty_large(no, chunk)? {
                return Ok(Pages::ZERO);
            }
            chunk.backing = Backing::Small(self.break_up(no)?);
            if let Some((first, _)) = set.runs().next() {
                self.mapping.split_huge_page(no.0 * CHUNK + usize::from(first) * PAGE);
            }
        }
        if let Backing::Small(table) = &mut chunk.backing {
            return self.discard_pages(no, table, set);
        }
        Ok(Pages::ZERO)
    }

    /// Gives a whole large chunk back. Armed first: a page that the guest touches after the discard must ask, or it
    /// would be there without being charged. False where the pages could not be discarded.
    fn empty_large(&self, no: ChunkNo, chunk: &mut Chunk) -> io::Result<bool> {
        let late = self.mutations.has(Mutation::LateArming);
        if !late {
            self.uffd.arm(self.chunk_range(no))?;
        }
        let discarded = self.mapping.discard(no.0 * CHUNK, CHUNK).is_ok();
        if late {
            std::thread::yield_now();
            self.uffd.arm(self.chunk_range(no))?;
        }
        if discarded {
            chunk.backing = Backing::default();
        }
        Ok(discarded)
    }

    /// Breaks a large chunk up. Armed first, so that no page appears any more; then the kernel knows which pages
    /// are there.
    pub(crate) fn break_up(&self, no: ChunkNo) -> io::Result<Box<Table>> {
        let range = self.chunk_range(no);
        self.uffd.arm(range)?;
        match self.pagemap.backed(range.start) {
            Ok(backed) => Ok(Table::of_private(&backed)),
            Err(error) => {
                self.uffd.disarm(range)?;
                Err(error)
            }
        }
    }

    /// Gives back what the pages of `set` have: memory in runs as long as the set's, and what they have elsewhere. They are
    /// absent then. Returns by how much the store is smaller.
    fn discard_pages(&self, no: ChunkNo, table: &mut Table, set: &PageSet) -> io::Result<Pages> {
        let mut freed = Pages::ZERO;
        self.renew(no, table, set)?;
        let resident = table.among(set, PageState::is_resident);
        for (first, len) in set.runs() {
            let run = PageSet::span(first, len);
            if !run.intersection(&resident).is_empty() {
                let offset = self.offset(Place { chunk: no, slot: first });
                self.mapping.discard(offset, usize::from(len) * PAGE)?;
            }
            let had: Vec<_> = run.iter().map(|slot| table.get(slot)).collect();
            let given_up = table.among(&run, |state| state != PageState::Ballooned);
            table.set_all(&given_up, PageState::Absent);
            if had.iter().any(|state| matches!(state, PageState::Arriving { .. })) {
                // What is read for them will find that they do not need it any more: whoever waits for it must ask anew.
                self.wake_run(no, (first, len));
            }
            freed += self.forget(had);
        }
        Ok(freed)
    }
}

/// Marks pages that were just given back: the balloon's are remembered, so that it is known how large it is and when
/// it is popped.
fn mark(chunk: &mut Chunk, set: &PageSet, how: Release) {
    match how {
        Release::Ballooned if set.is_full() && matches!(chunk.backing, Backing::Empty { .. }) => {
            chunk.backing = Backing::Empty { ballooned: true, zero: 0 };
        }
        Release::Ballooned => {
            if let Some(table) = chunk.small_table() {
                table.set_all(set, PageState::Ballooned);
            }
        }
        Release::Reported => {}
    }
}
