//! Finding pages with zeros, and pages that other VMs have too.

mod look;
mod notes;

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use plimsoll_sys::clock::thread_processor_time;
use plimsoll_units::{FrameNo, PageDigest, PageNo, Pages, ReturnReason};

use self::look::{digest_of, look_at};
use self::notes::Scan;
use super::service::serve_freed;
use crate::address::{ChunkNo, PAGE, Place, PpnRange, Slot, page_no};
use crate::content::{Found, FramePool, FrameSource, MOST_OFFERED, Pool};
use crate::lock::{HINTS, Lock, SCAN};
use crate::page::Backing;
use crate::sync::Arc;
use crate::transition::Vm;
use crate::transition::break_up::break_large;
use crate::transition::frames::references;
use crate::transition::share::share_in_chunk;
use crate::transition::unshare::unshare;
use crate::transition::zeros::drop_zeros;

/// Pages that must be shareable for a large chunk to be broken up: fewer save less than what the
/// lost huge page costs.
const WORTH_BREAKING: usize = 32;

/// What the scanner may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanOrder {
    /// Break large chunks up if that pays. Otherwise they are only read.
    pub break_large: bool,
}

/// Result of [`Pmap::scan`](crate::Pmap::scan).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Pages that were looked at.
    pub pages: Pages,
    /// By how much the VM holds less.
    pub freed: Pages,
    /// A pass has ended: all of the VM has been looked at once more.
    pub pass_ended: bool,
}

/// The source's answers about pages of a chunk.
#[derive(Default)]
struct LookedUp {
    frames: Vec<(Slot, FrameNo)>,
    wanted: Vec<(Slot, PageDigest)>,
    unanswered: Vec<Slot>,
}

impl LookedUp {
    /// The pages that can be shared.
    fn slots(&self) -> impl Iterator<Item = Slot> {
        let frames = self.frames.iter().map(|&(slot, _)| slot);
        frames.chain(self.wanted.iter().map(|&(slot, _)| slot))
    }
}

/// Finds pages that hold zeros, and drops them; and pages that other VMs have too, and shares them.
pub(crate) struct Scanner {
    vm: Arc<Vm>,
    scan: Lock<Scan, SCAN>,
    /// Chunks that are to be looked at first.
    prioritized: Lock<BTreeSet<ChunkNo>, HINTS>,
}

impl Scanner {
    pub(crate) fn new(vm: Arc<Vm>) -> Self {
        Self { vm, scan: Lock::default(), prioritized: Lock::default() }
    }

    /// See [`Pmap::scan`](crate::Pmap::scan).
    pub(crate) fn scan(&self, order: ScanOrder, budget: Duration) -> Scanned {
        let vm = &*self.vm;
        let start = thread_processor_time();
        let mut scan = self.scan.lock();
        let mut scanned = Scanned::default();
        loop {
            scan.prioritized.append(&mut *self.prioritized.lock());
            let (no, last) = scan.next(vm.memory.layout().chunks(), order.break_large);
            let (pages, freed) = self.scan_chunk(&mut scan, no);
            scanned.pages += pages;
            scanned.freed += freed;
            if freed > Pages::ZERO {
                serve_freed(vm, freed);
            }
            if last || thread_processor_time().saturating_sub(start) >= budget {
                scanned.pass_ended = last;
                return scanned;
            }
        }
    }

    /// See [`Pmap::scan_anew`](crate::Pmap::scan_anew).
    pub(crate) fn forget(&self) {
        self.scan.lock().forget();
    }

    /// See [`Pmap::prioritize`](crate::Pmap::prioritize).
    pub(crate) fn prioritize(&self, ranges: &[PpnRange]) {
        let vm = &*self.vm;
        self.prioritized.lock().extend(vm.memory.layout().by_chunk(ranges).0.map(|(no, _)| no));
    }

    /// Shares pages of a chunk that is about to be paged out; returns by how much the VM holds
    /// less.
    pub(crate) fn share_before(&self, no: ChunkNo) -> Pages {
        let vm = &*self.vm;
        if vm.frames.pool().is_none() {
            return Pages::ZERO;
        }
        let Some(mut scan) = self.scan.try_lock() else { return Pages::ZERO };
        scan.notes.resize_with(vm.memory.layout().chunks(), || None);
        let may_break = std::mem::replace(&mut scan.may_break, true);
        let (_, freed) = self.scan_chunk(&mut scan, no);
        scan.may_break = may_break;
        freed
    }

    /// See [`Pmap::join_frames`](crate::Pmap::join_frames).
    ///
    /// # Errors
    /// The pool cannot be mapped.
    pub(crate) fn join(&self, pool: FramePool, source: Arc<dyn FrameSource>) -> io::Result<()> {
        let vm = &*self.vm;
        let pool = Pool::new(pool, source)?;
        let mut scan = self.scan.lock();
        scan.forget();
        vm.frames.join(pool);
        Ok(())
    }

    /// See [`Pmap::leave_frames`](crate::Pmap::leave_frames).
    pub(crate) fn leave(&self) -> Pages {
        let vm = &*self.vm;
        let _scan = self.scan.lock();
        for no in vm.memory.layout().chunk_numbers() {
            unshare(vm, no);
        }
        // Pages whose frames a device may still be reading count as well.
        let left = Pages(references(vm).len() as u64);
        if left == Pages::ZERO {
            vm.frames.leave();
        }
        left
    }

    /// See [`Pmap::share`](crate::Pmap::share).
    pub(crate) fn share(&self, pages: &[(PageNo, FrameNo)]) {
        let vm = &*self.vm;
        let mut scan = self.scan.lock();
        let Some(pool) = vm.frames.pool() else { return };
        let mut pages = pages.to_vec();
        pages.sort_unstable();
        let mut freed = Pages::ZERO;
        let outside = pages.extract_if(.., |(page, _)| u64::from(page.0) >= vm.memory.layout().pages().0);
        outside.for_each(|page| tracing::error!(?page, "a frame for a page outside guest RAM"));
        for of_chunk in pages.chunk_by(|a, b| Place::of_page_no(a.0).chunk == Place::of_page_no(b.0).chunk) {
            let no = Place::of_page_no(of_chunk[0].0).chunk;
            let pairs: Vec<_> =
                of_chunk.iter().map(|&(page, frame)| (Place::of_page_no(page).slot, frame)).collect();
            if !self.may_share_in(&mut scan, no, pairs.len()) {
                let slots = pairs.iter().map(|&(slot, _)| slot);
                scan.mark_stale(no, slots);
            }
            freed += share_or_give_back(vm, &pool, no, &pairs, |_| None);
        }
        serve_freed(vm, freed);
    }

    /// Whether `gain` pages of this chunk may be shared now. Breaks up a large chunk first if
    /// `gain` justifies it.
    fn may_share_in(&self, scan: &mut Scan, no: ChunkNo, gain: usize) -> bool {
        let vm = &*self.vm;
        if !matches!(vm.chunk(no).backing, Backing::Large | Backing::Aside(_)) {
            return true;
        }
        if gain >= WORTH_BREAKING {
            if scan.may_break
                && let Some(freed) = break_large(vm, no)
            {
                serve_freed(vm, freed);
                return true;
            }
            scan.worth_breaking.insert(no);
        }
        false
    }

    fn scan_chunk(&self, scan: &mut Scan, no: ChunkNo) -> (Pages, Pages) {
        let vm = &*self.vm;
        let pool = vm.frames.pool();
        let candidates = look_at(vm, scan, no, pool.as_ref().map(|pool| &*pool.source));
        {
            let mut account = vm.account();
            account.sharing.scanned += candidates.looked_at;
            account.sharing.hashed += candidates.digests.len() as u64;
        }
        let mut known = match &pool {
            Some(pool) => look_up(pool, no, &candidates.digests),
            None => LookedUp::default(),
        };
        scan.mark_stale(no, known.unanswered.iter().copied());
        let mut freed = Pages::ZERO;
        let gain = candidates.zeros.iter().count() + known.frames.len() + known.wanted.len();
        if gain > 0 && self.may_share_in(scan, no, gain) {
            freed += drop_zeros(vm, no, &candidates.zeros);
        } else {
            // The pages are to be found again when they may be shared.
            scan.mark_stale(no, known.slots());
            known.wanted.clear();
        }
        if let Some(pool) = &pool {
            for wanted in known.wanted.chunks(MOST_OFFERED) {
                let (made, unpaid) = self.offer(pool, no, wanted);
                known.frames.extend(made);
                scan.mark_stale(no, unpaid.into_iter());
            }
            known.frames.sort_unstable();
            let digest = |slot| {
                let at = candidates.digests.binary_search_by_key(&slot, |&(slot, _)| slot).ok()?;
                Some(candidates.digests[at].1)
            };
            freed += share_or_give_back(vm, pool, no, &known.frames, digest);
        }
        (Pages(candidates.looked_at), freed)
    }

    /// Offers pages, as far as the grant has pages to pay for frames. Returns the frames that they
    /// are to become, and the pages that could not be paid for.
    fn offer(
        &self,
        pool: &Pool,
        no: ChunkNo,
        wanted: &[(Slot, PageDigest)],
    ) -> (Vec<(Slot, FrameNo)>, Vec<Slot>) {
        let vm = &*self.vm;
        let (mut pages, mut content) = (Vec::new(), Vec::new());
        {
            let chunk = vm.chunk(no);
            let Backing::Small(table) = &chunk.backing else { return Default::default() };
            let mut page = [0; PAGE];
            for &(slot, digest) in wanted {
                if table.get(slot).is_resident() {
                    vm.memory.read_page(Place { chunk: no, slot }, &mut page);
                    if pool.source.digest(&page) == digest {
                        pages.push((page_no(no, slot), digest));
                        content.push(page);
                    }
                }
            }
        }
        let slot = |page: PageNo| Place::of_page_no(page).slot;
        let paid = vm.account().pay_for_frames(Pages(pages.len() as u64));
        let paid = usize::try_from(paid.0).unwrap_or(pages.len());
        let unpaid = pages.drain(paid..).map(|(page, _)| slot(page)).collect();
        content.truncate(paid);
        if pages.is_empty() {
            return (Vec::new(), unpaid);
        }
        let frames = pool.source.offer(&pages, &content).unwrap_or_default();
        let made = pages.iter().zip(frames).filter_map(|(&(page, _), frame)| Some((slot(page), frame?)));
        (made.collect(), unpaid)
    }
}

/// Shares pages of a chunk, in order, and gives back the frames of those that could not be shared.
/// `digest(slot)` is the digest under which the source named the frame.
fn share_or_give_back(
    vm: &Vm,
    pool: &Pool,
    no: ChunkNo,
    pairs: &[(Slot, FrameNo)],
    digest: impl Fn(Slot) -> Option<PageDigest>,
) -> Pages {
    let shared = share_in_chunk(vm, pool, no, pairs);
    let (mut changed, mut mismatched) = (Vec::new(), Vec::new());
    for &(slot, frame) in pairs {
        if shared.pages.contains(slot) {
            continue;
        }
        // Either the page has changed since, or the source was wrong.
        let named = digest(slot).filter(|_| shared.mismatched.contains(slot));
        let now = || digest_of(vm, &*pool.source, Place { chunk: no, slot });
        let wrong = named.is_some() && now() == named;
        let list = if wrong { &mut mismatched } else { &mut changed };
        list.push((page_no(no, slot), frame));
    }
    for (pages, reason) in [(changed, ReturnReason::Unused), (mismatched, ReturnReason::Mismatch)] {
        if !pages.is_empty() {
            pool.source.give_back(&pages, reason);
        }
    }
    shared.freed
}

/// Asks the source about pages.
fn look_up(pool: &Pool, no: ChunkNo, digests: &[(Slot, PageDigest)]) -> LookedUp {
    let mut known = LookedUp::default();
    if digests.is_empty() {
        return known;
    }
    let pages: Vec<(PageNo, PageDigest)> =
        digests.iter().map(|&(slot, digest)| (page_no(no, slot), digest)).collect();
    let Some(found) = pool.source.look_up(&pages) else {
        known.unanswered.extend(digests.iter().map(|&(slot, _)| slot));
        return known;
    };
    for (&(slot, digest), found) in digests.iter().zip(found) {
        match found {
            Found::Nothing => {}
            Found::Frame(frame) => known.frames.push((slot, frame)),
            Found::Wanted => known.wanted.push((slot, digest)),
        }
    }
    known
}
