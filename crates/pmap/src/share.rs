//! Sharing pages, and ending that.
//!
//! A page is shared when its content is compared in full with a frame's, under write protection, and found the same: then a
//! private mapping of the frame takes its place (Waldspurger 2002, section 4.2). It stays write-protected, so that a write
//! asks, is charged, and gets a copy of its own.

use std::io;
use std::os::fd::AsFd;

use plimsoll_units::{FrameNo, PAGE_SIZE, PageNo, Pages};

use crate::chunk::{Backing, lock};
use crate::frames::{FramePool, FrameSource, Pool};
use crate::host_range::PAGE;
use crate::layout::{ChunkNo, Place};
use crate::mutation::Mutation;
use crate::page_set::{PageSet, Slot};
use crate::pmap::Pmap;
use crate::sync::Arc;
use crate::table::{PageState, Table};

/// Shortest run of pages that is worth a mapping where mappings are short.
const LONG_RUN: Slot = 16;
/// Mappings that a run adds at most: itself, and what it cuts off.
pub(crate) const MAPPINGS_OF_RUN: u64 = 2;
/// Mappings that are left to the rest of the process: those between shared pages, three for each sample, stacks, and what breaking a run
/// in two takes.
const RESERVED_MAPPINGS: u64 = 12_000;
/// What a process may have where the kernel does not say.
const USUAL_MAPPINGS: u64 = 65_530;

/// What became of pages that were to be shared.
#[derive(Default)]
pub(crate) struct Shared {
    /// They are frames now.
    pub(crate) pages: PageSet,
    /// They were written to before they could be protected, and are private.
    own: PageSet,
    /// Their content is not the frame's.
    pub(crate) different: PageSet,
    /// By how much the VM holds less.
    pub(crate) freed: Pages,
}

/// Neighbours whose frames are neighbours: one mapping.
struct Run {
    slot: Slot,
    frame: FrameNo,
    len: Slot,
}

impl Pmap {
    /// From now on pages are shared with those frames. What was shared before must have ended: [`Pmap::leave_frames`].
    ///
    /// # Errors
    /// The pool cannot be mapped.
    pub fn join_frames(&self, pool: FramePool, source: Arc<dyn FrameSource>) -> io::Result<()> {
        let pool = Pool::new(pool, source)?;
        let mut scan = lock(&self.scan);
        scan.forget();
        *lock(&self.pool) = Some(Arc::new(pool));
        Ok(())
    }

    /// Ends all sharing: pages get back their own copies, as far as the grant has room for which nobody waits. Returns how
    /// many are left; call it again when there is room. With none left the pool is let go.
    pub fn leave_frames(&self) -> Pages {
        let _scan = lock(&self.scan);
        for no in (0..self.layout.chunks()).map(ChunkNo) {
            self.unshare(no);
        }
        // Those that a device may still be reading included.
        let left = Pages(self.references().len() as u64);
        if left == Pages::ZERO {
            *lock(&self.pool) = None;
        }
        left
    }

    /// The frames that pages are, or that are still to be given back for them.
    pub fn references(&self) -> Vec<(PageNo, FrameNo)> {
        let mut references = Vec::new();
        for no in (0..self.layout.chunks()).map(ChunkNo) {
            if let Backing::Small(table) = &self.chunk(no).backing {
                let shared =
                    (0..).zip(table.states()).filter_map(|(slot, state)| Some((slot, state.frame()?)));
                let all = shared.chain(table.departed.iter().copied());
                references.extend(all.map(|(slot, frame)| (page_no(no, slot), frame)));
            }
        }
        references
    }

    /// Shares pages with frames that the source holds for them. What cannot be shared is given back. Large chunks are broken up
    /// for it only where the last [`ScanOrder`](crate::ScanOrder) said so, and where it pays.
    pub fn share(&self, pages: &[(PageNo, FrameNo)]) {
        let mut scan = lock(&self.scan);
        let Some(pool) = self.pool() else { return };
        let mut pages = pages.to_vec();
        pages.sort_unstable();
        let mut freed = Pages::ZERO;
        let outside = pages.extract_if(.., |(page, _)| u64::from(page.0) >= self.layout.pages().0);
        outside.for_each(|page| tracing::error!(?page, "a frame for a page outside guest RAM"));
        for of_chunk in pages.chunk_by(|a, b| place(a.0).chunk == place(b.0).chunk) {
            let no = place(of_chunk[0].0).chunk;
            let pairs: Vec<_> = of_chunk.iter().map(|&(page, frame)| (place(page).slot, frame)).collect();
            if !self.may_share_in(&mut scan, no, pairs.len()) {
                let slots = pairs.iter().map(|&(slot, _)| slot);
                scan.look_again(no, slots);
            }
            freed += self.share_or_give_back(&pool, no, &pairs, |_| None);
        }
        self.serve_freed(freed);
    }

    /// Shares pages of a chunk, in order, and gives back the frames of those that could not be; `hash` knows which hash made
    /// the source name a frame for a page.
    pub(crate) fn share_or_give_back(
        &self,
        pool: &Pool,
        no: ChunkNo,
        pairs: &[(Slot, FrameNo)],
        hash: impl Fn(Slot) -> Option<u64>,
    ) -> Pages {
        let shared = self.share_in_chunk(pool, no, pairs);
        let (mut changed, mut mismatched) = (Vec::new(), Vec::new());
        for &(slot, frame) in pairs {
            if shared.pages.contains(slot) {
                continue;
            }
            // The page has changed since, as pages do; or else the source was wrong.
            let wrong =
                shared.different.contains(slot) && hash(slot) == self.hash_of(Place { chunk: no, slot });
            let list = if wrong && hash(slot).is_some() { &mut mismatched } else { &mut changed };
            list.push((page_no(no, slot), frame));
        }
        for (pages, mismatch) in [(changed, false), (mismatched, true)] {
            if !pages.is_empty() {
                pool.source.give_back(&pages, mismatch);
            }
        }
        shared.freed
    }

    fn share_in_chunk(&self, pool: &Pool, no: ChunkNo, pairs: &[(Slot, FrameNo)]) -> Shared {
        let mut chunk = self.chunk(no);
        let before = chunk.tally();
        let busy = chunk.busy();
        let Backing::Small(table) = &mut chunk.backing else { return Shared::default() };
        let usable = table.pages(PageState::is_resident).minus(&busy);
        let usable = |&(slot, frame): &(Slot, FrameNo)| usable.contains(slot) && pool.view.has(frame);
        let mut runs = runs(pairs.iter().copied().filter(usable));
        let mappings = self.account().mappings();
        keep_what_fits(&mut runs, mappings, self.most_mappings);
        let mut shared = self.compare_and_map(pool, no, table, &runs);
        let gone = shared.pages.union(&shared.own);
        let copies: Vec<_> = gone.iter().map(|slot| table.get(slot)).collect();
        table.set_all(&shared.own, PageState::Private);
        for run in &runs {
            for (slot, frame) in (run.slot..run.slot + run.len).zip(run.frame.0..) {
                if shared.pages.contains(slot) {
                    table.set(slot, PageState::Shared(FrameNo(frame)));
                }
            }
        }
        self.forget(copies);
        chunk.empty_if_uniform();
        shared.freed = self.record(before, &chunk);
        let mut account = self.account();
        account.sharing.merged += shared.pages.count().0;
        account.sharing.mismatched += shared.different.count().0;
        drop(account);
        self.wake_all(no, &shared.pages);
        shared
    }

    /// Puts frames in the place of pages that hold the same. Their states are as before; those that were overlaid, or are now, are
    /// marked.
    fn compare_and_map(&self, pool: &Pool, no: ChunkNo, table: &mut Table, runs: &[Run]) -> Shared {
        let all = runs.iter().fold(PageSet::EMPTY, |set, run| set.union(&PageSet::span(run.slot, run.len)));
        let dirty = table.unguarded(&all);
        if let Err(error) = self.protect(no, &dirty) {
            tracing::warn!(%error, "pages cannot be write-protected and are not shared");
            self.unprotect(no, &dirty).ok();
            return Shared::default();
        }
        let blind = self.mutations.has(Mutation::BlindSharing);
        let mut same = Vec::new();
        for run in runs {
            let pages =
                (run.slot..run.slot + run.len).zip(run.frame.0..).map(|(slot, frame)| (slot, FrameNo(frame)));
            let offset = |slot| self.offset(Place { chunk: no, slot });
            same.extend(
                pages.filter(|&(slot, frame)| blind || self.mapping.equals(offset(slot), &pool.view, frame)),
            );
        }
        let different = all.minus(&same.iter().map(|&(slot, _)| slot).collect());
        let mapped = self.overlay(pool, no, table, same);
        // All of them in one call, if they were protected so.
        let rest = if dirty == PageSet::FULL { dirty } else { dirty.minus(&mapped) };
        let own = self.guard(no, &mapped, &rest);
        let pages = mapped.minus(&own);
        table.overlaid = table.overlaid.minus(&pages).union(&own);
        Shared { pages, own, different, freed: Pages::ZERO }
    }

    /// Maps frames over pages; returns the pages where that went well.
    fn overlay(&self, pool: &Pool, no: ChunkNo, table: &mut Table, same: Vec<(Slot, FrameNo)>) -> PageSet {
        let mut mapped = PageSet::EMPTY;
        for run in runs(same.into_iter()) {
            let offset = self.offset(Place { chunk: no, slot: run.slot });
            let at = u64::from(run.frame.0) * PAGE_SIZE;
            match self.mapping.overlay(offset, usize::from(run.len) * PAGE, pool.fd.as_fd(), at) {
                Ok(()) => {
                    mapped = mapped.union(&PageSet::span(run.slot, run.len));
                    table.islands.put(run.slot, run.len);
                }
                Err(error) => {
                    crate::fault::warn_of_mappings(&error);
                    break;
                }
            }
        }
        mapped
    }

    /// Sees to it that frames that were just mapped cannot be written without asking, and that the `rest` of the pages can; returns
    /// those that had been written by then: they are the guest's own.
    fn guard(&self, no: ChunkNo, mapped: &PageSet, rest: &PageSet) -> PageSet {
        let guarded = self.arm_runs(no, mapped);
        let guarded = guarded.and_then(|()| self.unprotect(no, rest)).and_then(|()| self.protect(no, mapped));
        let own = guarded.and_then(|()| self.pagemap.own(self.chunk_range(no).start, mapped));
        let own = match own {
            Ok(_) if self.mutations.has(Mutation::UnseenWrite) => return PageSet::EMPTY,
            Ok(own) => own,
            Err(error) => {
                tracing::error!(%error, "frames cannot be write-protected, and are copied");
                self.unprotect(no, &rest.union(mapped)).ok();
                mapped.iter().for_each(|slot| self.mapping.touch(self.offset(Place { chunk: no, slot })));
                *mapped
            }
        };
        if let Err(error) = self.unprotect(no, &own) {
            tracing::error!(%error, "pages stay write-protected");
        }
        own
    }

    /// Arms runs of pages: one by one where they are few, and all the chunk at once where they are many.
    fn arm_runs(&self, no: ChunkNo, pages: &PageSet) -> io::Result<()> {
        if pages.is_ragged() {
            return self.uffd.arm(self.chunk_range(no));
        }
        pages.runs().try_for_each(|run| self.uffd.arm(self.run_range(no, run)))
    }

    /// Gives a shared page, charged already, a copy of its own; false where that cannot be done.
    pub(crate) fn break_page(&self, place: Place, table: &mut Table, frame: FrameNo) -> bool {
        if let Err(error) = self.unprotect(place.chunk, &PageSet::one(place.slot)) {
            tracing::error!(%error, ppn = self.ppn(place).0, "cannot let a shared page be written");
            self.wake(place);
            return false;
        }
        // The kernel copies it now, and not when the guest comes to it: the frame may be another one by then.
        if !self.mutations.has(Mutation::EarlyDeparture) {
            self.mapping.touch(self.offset(place));
        }
        table.set(place.slot, PageState::Private);
        table.recent.insert(place.slot);
        table.broken.insert(place.slot);
        table.overlaid.insert(place.slot);
        table.departed.push((place.slot, frame));
        self.account().sharing.broken += 1;
        true
    }

    /// Gives shared pages of a chunk copies of their own, as far as the grant goes.
    fn unshare(&self, no: ChunkNo) {
        let mut chunk = self.chunk(no);
        let before = chunk.tally();
        let Backing::Small(table) = &mut chunk.backing else { return };
        if before.shared == Pages::ZERO {
            return;
        }
        let mut left = self.account().charge_spare(before.shared);
        for slot in table.pages(|state| state.frame().is_some()).iter() {
            let PageState::Shared(frame) = table.get(slot) else { continue };
            if left > Pages::ZERO && self.break_page(Place { chunk: no, slot }, table, frame) {
                left -= Pages(1);
            }
        }
        self.let_frames_go(no, &mut chunk);
        let mut account = self.account();
        account.changed(before, chunk.tally());
        account.uncharge(left);
    }

    /// Gives back frames that pages of a chunk had, except for those of `busy` ones: a device may be reading them.
    pub(crate) fn give_back_departed(&self, no: ChunkNo, table: &mut Table, busy: &PageSet) {
        if table.departed.is_empty() {
            return;
        }
        let gone = table.departed.extract_if(.., |(slot, _)| !busy.contains(*slot));
        let gone: Vec<_> = gone.map(|(slot, frame)| (page_no(no, slot), frame)).collect();
        if let (Some(pool), false) = (self.pool(), gone.is_empty()) {
            pool.source.give_back(&gone, false);
        }
    }

    pub(crate) fn pool(&self) -> Option<Arc<Pool>> {
        lock(&self.pool).clone()
    }
}

/// Joins neighbours, which come in order.
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

/// Leaves those of `runs` for which there are mappings, beside `mappings` of at most `most`. The last
/// quarter is for long runs.
fn keep_what_fits(runs: &mut Vec<Run>, mappings: u64, most: u64) {
    if mappings + MAPPINGS_OF_RUN * runs.len() as u64 > most_for_short_runs(most) {
        runs.retain(|run| run.len >= LONG_RUN);
    }
    let fit = most.saturating_sub(mappings) / MAPPINGS_OF_RUN;
    runs.truncate(usize::try_from(fit).unwrap_or(usize::MAX));
}

/// Of `most` mappings, how many may be taken before only long runs are shared.
pub(crate) fn most_for_short_runs(most: u64) -> u64 {
    most / 4 * 3
}

/// How many mappings shared pages, and those that were, may take together.
pub(crate) fn most_mappings() -> u64 {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok();
    let limit = limit.and_then(|limit| limit.trim().parse().ok()).unwrap_or(USUAL_MAPPINGS);
    limit.saturating_sub(RESERVED_MAPPINGS)
}

#[expect(clippy::cast_possible_truncation, reason = "2^32 pages are 16 TiB, more than a VM has")]
pub(crate) fn page_no(chunk: ChunkNo, slot: Slot) -> PageNo {
    PageNo(Place { chunk, slot }.index() as u32)
}

fn place(page: PageNo) -> Place {
    Place::of(page.0.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_run_is_shared_beyond_the_mappings_that_there_are() {
        let fitting = |mappings, most| {
            let run = |len| Run { slot: 0, frame: FrameNo(0), len };
            let mut runs = vec![run(1), run(16), run(3), run(100), run(20)];
            keep_what_fits(&mut runs, mappings, most);
            runs.iter().map(|run| run.len).collect::<Vec<_>>()
        };
        assert_eq!(fitting(65, 100), [1, 16, 3, 100, 20]);
        assert_eq!(fitting(66, 100), [16, 100, 20], "the last quarter is for long ones");
        assert_eq!(fitting(95, 100), [16, 100]);
        assert!(fitting(99, 100).is_empty());
        assert!(fitting(500, 100).is_empty());
    }
}
