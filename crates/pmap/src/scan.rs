//! Looking for pages that others have, too.

use std::collections::BTreeSet;
use std::time::Duration;

use plimsoll_units::{FrameNo, PageNo, Pages, page_hash};
use rustix::time::{ClockId, clock_gettime};

use crate::chunk::{Backing, Chunk, lock};
use crate::frames::{Found, MOST_OFFERED, Pool};
use crate::host_range::{CHUNK, PAGE};
use crate::layout::{ChunkNo, Place, PpnRange};
use crate::page_set::{PageSet, SLOTS, Slot};
use crate::pmap::Pmap;
use crate::share::page_no;
use crate::table::PageState;

/// Pages that are read under one hold of a chunk's lock: some 30 us.
const BATCH: Slot = 64;
/// A large chunk is broken up for so many pages that can be shared: fewer save less than what the lost huge page costs.
const WORTH_BREAKING: usize = 32;
/// Every so many passes each page is read again, whether or not it seems to have changed.
const THOROUGH: u32 = 16;
/// One in so many pages is looked at to see whether a chunk has changed; in as many passes each of them.
const STRIDE: u32 = 4;
/// Bytes of a page that are looked at to see whether it has changed: a line of the processor's cache.
const LINE: usize = 64;
/// A page that has been broken so often rests for 2^this passes.
const LONGEST_REST: u8 = 7;

/// The print of a page that was there and is to be looked at again: none has it.
const LOOK_AGAIN: u16 = 1;

/// What the scanner may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanOrder {
    /// Large chunks are broken up where that pays. Otherwise they are only looked at.
    pub break_large: bool,
}

/// What came of [`Pmap::scan`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Pages that were looked at.
    pub pages: Pages,
    /// By how much the VM holds less.
    pub freed: Pages,
    /// All of the VM has been looked at once more.
    pub pass_ended: bool,
}

/// Where the scanner has come to.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// What is left of this pass, the next one last.
    left: Vec<ChunkNo>,
    pass: u32,
    notes: Vec<Option<Box<Notes>>>,
    /// To be looked at first.
    hurried: BTreeSet<ChunkNo>,
    /// Large chunks that would be worth breaking up.
    promising: BTreeSet<ChunkNo>,
    may_break: bool,
}

/// What is remembered of a chunk's pages.
type Notes = [Note; SLOTS as usize];

/// What is remembered of a page.
#[derive(Clone, Copy, Debug, Default)]
struct Note {
    /// Of a part of its content when it was last looked up. Zero: it was not, and may not be there.
    print: u16,
    /// Passes for which it is left alone.
    rest: u8,
    /// Times that it was broken.
    breaks: u8,
}

/// Pages of a chunk that may be shared.
#[derive(Default)]
struct Candidates {
    looked_at: u64,
    zeros: PageSet,
    hashes: Vec<(Slot, u64)>,
}

/// What the source has to say of pages of a chunk.
#[derive(Default)]
struct Known {
    frames: Vec<(Slot, FrameNo)>,
    wanted: Vec<(Slot, u64)>,
    unanswered: Vec<Slot>,
}

impl Known {
    /// Those that can be shared.
    fn slots(&self) -> impl Iterator<Item = Slot> {
        let frames = self.frames.iter().map(|&(slot, _)| slot);
        frames.chain(self.wanted.iter().map(|&(slot, _)| slot))
    }
}

impl Scan {
    /// Every page is news again.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Pages are to be looked up again when the chunk is scanned next.
    pub(crate) fn look_again(&mut self, no: ChunkNo, slots: impl Iterator<Item = Slot>) {
        if let Some(Some(notes)) = self.notes.get_mut(no.0) {
            slots.for_each(|slot| notes[usize::from(slot)].print = LOOK_AGAIN);
        }
    }

    /// The chunk to look at, and whether it is the last of a pass.
    fn next(&mut self, chunks: usize, order: ScanOrder) -> (ChunkNo, bool) {
        self.notes.resize_with(chunks, || None);
        if order.break_large && !self.may_break {
            self.hurried.append(&mut self.promising);
        }
        self.may_break = order.break_large;
        if let Some(no) = self.hurried.pop_first() {
            return (no, false);
        }
        if self.left.is_empty() {
            self.pass = self.pass.wrapping_add(1);
            self.left = (0..chunks).map(ChunkNo).collect();
            fastrand::shuffle(&mut self.left);
        }
        let next = self.left.pop().unwrap_or(ChunkNo(0));
        (next, self.left.is_empty())
    }
}

impl Pmap {
    /// Looks for pages that hold zeros, or what others hold, too, and shares them; for so much of this thread's processor
    /// time, or until all of the VM has been looked at. Pages are looked at in random order, those first that
    /// [`Pmap::hurry`] has named; those that have not changed are passed over, and so are those that were broken lately,
    /// for a while that grows.
    ///
    /// May block as long as the [`FrameSource`](crate::FrameSource) does, but never for a grant.
    pub fn scan(&self, order: ScanOrder, budget: Duration) -> Scanned {
        let start = processor_time();
        let mut scan = lock(&self.scan);
        let mut scanned = Scanned::default();
        loop {
            scan.hurried.append(&mut lock(&self.hurried));
            let (no, last) = scan.next(self.layout.chunks(), order);
            let (pages, freed) = self.scan_chunk(&mut scan, no);
            scanned.pages += pages;
            scanned.freed += freed;
            if freed > Pages::ZERO {
                self.serve_freed(freed);
            }
            if last || processor_time().saturating_sub(start) >= budget {
                scanned.pass_ended = last;
                return scanned;
            }
        }
    }

    /// Has every page looked at as if for the first time: whoever was told of them has forgotten it.
    pub fn scan_anew(&self) {
        lock(&self.scan).forget();
    }

    /// Has pages looked at before all others, because they were just loaded from a file that others may have loaded, too.
    pub fn hurry(&self, ranges: &[PpnRange]) {
        lock(&self.hurried).extend(self.layout.by_chunk(ranges).0.map(|(no, _)| no));
    }

    /// Shares what can be of a chunk that is about to be paged out; returns by how much the VM holds less.
    pub(crate) fn share_before(&self, no: ChunkNo) -> Pages {
        if self.pool().is_none() {
            return Pages::ZERO;
        }
        let Ok(mut scan) = self.scan.try_lock() else { return Pages::ZERO };
        scan.notes.resize_with(self.layout.chunks(), || None);
        let may_break = std::mem::replace(&mut scan.may_break, true);
        let (_, freed) = self.scan_chunk(&mut scan, no);
        scan.may_break = may_break;
        freed
    }

    /// Whether pages of a chunk can be shared now, where so many could be. A large one is broken up for that if it pays.
    pub(crate) fn may_share_in(&self, scan: &mut Scan, no: ChunkNo, gain: usize) -> bool {
        if !matches!(self.chunk(no).backing, Backing::Large | Backing::Aside(_)) {
            return true;
        }
        if gain >= WORTH_BREAKING {
            if scan.may_break && self.break_large(no) {
                return true;
            }
            scan.promising.insert(no);
        }
        false
    }

    fn scan_chunk(&self, scan: &mut Scan, no: ChunkNo) -> (Pages, Pages) {
        let pool = self.pool();
        let candidates = self.look_at(scan, no);
        {
            let mut account = self.account();
            account.sharing.scanned += candidates.looked_at;
            account.sharing.hashed += candidates.hashes.len() as u64;
        }
        let mut known = match &pool {
            Some(pool) => look_up(pool, no, &candidates.hashes),
            None => Known::default(),
        };
        scan.look_again(no, known.unanswered.iter().copied());
        let mut freed = Pages::ZERO;
        let gain = candidates.zeros.iter().count() + known.frames.len() + known.wanted.len();
        if gain > 0 && self.may_share_in(scan, no, gain) {
            freed += self.drop_zeros(no, &candidates.zeros);
        } else {
            // What was found is to be found again when it may be used.
            scan.look_again(no, known.slots());
            known.wanted.clear();
        }
        if let Some(pool) = &pool {
            for wanted in known.wanted.chunks(MOST_OFFERED) {
                let (made, unpaid) = self.offer(pool, no, wanted);
                known.frames.extend(made);
                scan.look_again(no, unpaid.into_iter());
            }
            known.frames.sort_unstable();
            let hash = |slot| {
                let at = candidates.hashes.binary_search_by_key(&slot, |&(slot, _)| slot).ok()?;
                Some(candidates.hashes[at].1)
            };
            freed += self.share_or_give_back(pool, no, &known.frames, hash);
        }
        (Pages(candidates.looked_at), freed)
    }

    /// Finds what is new in a chunk: pages that hold zeros, and the hashes of others that have changed.
    fn look_at(&self, scan: &mut Scan, no: ChunkNo) -> Candidates {
        let mut candidates = Candidates::default();
        let Some(pages) = self.pages_to_scan(no, &mut scan.notes[no.0]) else {
            return candidates;
        };
        candidates.looked_at = pages.count().0;
        let Some(notes) = &mut scan.notes[no.0] else { return candidates };
        let thorough = scan.pass.is_multiple_of(THOROUGH);
        if !thorough && self.seems_unchanged(no, notes, &pages, scan.pass) {
            return candidates;
        }
        let mut left = pages;
        let mut page = Box::new([0; PAGE]);
        while !left.is_empty() {
            let batch = left.first(Pages(BATCH.into()));
            left = left.minus(&batch);
            let chunk = self.chunk(no);
            let there = match &chunk.backing {
                Backing::Large | Backing::Aside(_) => PageSet::FULL,
                Backing::Small(table) => table.pages(PageState::is_resident),
                Backing::Empty { .. } => return candidates,
            };
            let start = self.pages_of(no, &chunk);
            for slot in batch.intersection(&there).iter() {
                let (offset, note) = (start + usize::from(slot) * PAGE, &mut notes[usize::from(slot)]);
                if !thorough && note.print != 0 && note.print == self.print_at(offset, slot) {
                    continue;
                }
                if self.mapping.is_zero(offset) {
                    note.print = LOOK_AGAIN;
                    candidates.zeros.insert(slot);
                } else {
                    self.mapping.read_page(offset, &mut page);
                    note.print = print(&page[line(slot)..][..LINE]);
                    candidates.hashes.push((slot, page_hash(&page)));
                }
            }
        }
        candidates
    }

    /// The pages of a chunk that are there and do not rest; `None` where there are none.
    fn pages_to_scan(&self, no: ChunkNo, notes: &mut Option<Box<Notes>>) -> Option<PageSet> {
        let mut chunk = self.chunk(no);
        let busy = chunk.busy();
        let (pages, broken) = match &mut chunk.backing {
            Backing::Large | Backing::Aside(_) => {
                // Reading what is not there would bring it. What was there once still is, or costs nothing more.
                let known = notes.as_ref().map(|notes| looked_up(notes)).filter(|known| !known.is_empty());
                let start = self.mapping.range(self.pages_of(no, &chunk), CHUNK).start;
                (known.or_else(|| self.pagemap.backed(start).ok())?, PageSet::EMPTY)
            }
            Backing::Small(table) => (table.pages(PageState::is_resident), std::mem::take(&mut table.broken)),
            Backing::Empty { .. } => return None,
        };
        drop(chunk);
        let notes = notes.get_or_insert_with(|| Box::new([Note::default(); SLOTS as usize]));
        for slot in broken.iter() {
            let note = &mut notes[usize::from(slot)];
            note.breaks = note.breaks.saturating_add(1);
            note.rest = 1 << note.breaks.min(LONGEST_REST);
            note.print = LOOK_AGAIN;
        }
        let mut rests = PageSet::EMPTY;
        for slot in pages.iter() {
            let note = &mut notes[usize::from(slot)];
            if note.rest > 0 {
                note.rest -= 1;
                rests.insert(slot);
            }
        }
        Some(pages.minus(&busy).minus(&rests)).filter(|pages| !pages.is_empty())
    }

    /// Whether a part of a chunk's pages is as it was when they were last looked up.
    fn seems_unchanged(&self, no: ChunkNo, notes: &Notes, pages: &PageSet, pass: u32) -> bool {
        let chunk = self.chunk(no);
        let there = match &chunk.backing {
            Backing::Large | Backing::Aside(_) => *pages,
            Backing::Small(table) => table.among(pages, PageState::is_resident),
            Backing::Empty { .. } => return true,
        };
        let start = self.pages_of(no, &chunk);
        let turn = |slot: &Slot| u32::from(*slot) % STRIDE == pass % STRIDE;
        there.iter().filter(turn).all(|slot| {
            let known = notes[usize::from(slot)].print;
            known != 0 && known == self.print_at(start + usize::from(slot) * PAGE, slot)
        })
    }

    /// Where the pages of a chunk are that has them: in guest RAM, or behind it while samples are taken, which nobody
    /// else notices if it is read there.
    fn pages_of(&self, no: ChunkNo, chunk: &Chunk) -> usize {
        if let Backing::Aside(spare) = chunk.backing { self.spare_offset(spare) } else { no.0 * CHUNK }
    }

    fn print_at(&self, offset: usize, slot: Slot) -> u16 {
        let mut bytes = [0; LINE];
        self.mapping.read(offset + line(slot), &mut bytes);
        print(&bytes)
    }

    /// Offers pages, as far as the grant has pages to pay for frames. Returns the frames that they are to become, and the pages
    /// for which there was nothing to pay with.
    fn offer(&self, pool: &Pool, no: ChunkNo, wanted: &[(Slot, u64)]) -> (Vec<(Slot, FrameNo)>, Vec<Slot>) {
        let (mut pages, mut content) = (Vec::new(), Vec::new());
        {
            let chunk = self.chunk(no);
            let Backing::Small(table) = &chunk.backing else { return Default::default() };
            let mut page = [0; PAGE];
            for &(slot, hash) in wanted {
                if table.get(slot).is_resident() {
                    self.mapping.read_page(self.offset(Place { chunk: no, slot }), &mut page);
                    if page_hash(&page) == hash {
                        pages.push((page_no(no, slot), hash));
                        content.push(page);
                    }
                }
            }
        }
        let slot = |page: PageNo| Place::of(page.0.into()).slot;
        let paid = self.account().give_away(Pages(pages.len() as u64));
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

    /// The hash of a page that is there; `None` where it is not.
    pub(crate) fn hash_of(&self, place: Place) -> Option<u64> {
        let chunk = self.chunk(place.chunk);
        let Backing::Small(table) = &chunk.backing else { return None };
        let mut page = [0; PAGE];
        table.get(place.slot).is_resident().then(|| {
            self.mapping.read_page(self.offset(place), &mut page);
            page_hash(&page)
        })
    }
}

/// Asks the source about pages.
fn look_up(pool: &Pool, no: ChunkNo, hashes: &[(Slot, u64)]) -> Known {
    let mut known = Known::default();
    if hashes.is_empty() {
        return known;
    }
    let pages: Vec<(PageNo, u64)> = hashes.iter().map(|&(slot, hash)| (page_no(no, slot), hash)).collect();
    let Some(found) = pool.source.look_up(&pages) else {
        known.unanswered.extend(hashes.iter().map(|&(slot, _)| slot));
        return known;
    };
    for (&(slot, hash), found) in hashes.iter().zip(found) {
        match found {
            Found::Nothing => {}
            Found::Frame(frame) => known.frames.push((slot, frame)),
            Found::Wanted => known.wanted.push((slot, hash)),
        }
    }
    known
}

/// The pages that were looked up, or looked at.
fn looked_up(notes: &Notes) -> PageSet {
    (0..SLOTS).filter(|&slot| notes[usize::from(slot)].print != 0).collect()
}

/// Where in a page it is looked whether it has changed: elsewhere in each, so that what many pages have in common does not hide
/// changes in all of them.
fn line(slot: Slot) -> usize {
    usize::from(slot).wrapping_mul(37) % (PAGE / LINE) * LINE
}

/// A number that is likely to be another one where the bytes are others, and never zero or [`LOOK_AGAIN`].
fn print(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(8).filter_map(|word| word.try_into().ok()).map(u64::from_le_bytes);
    let mixed = words.fold(0x9E37_79B9_7F4A_7C15_u64, |mixed, word| {
        (mixed ^ word).wrapping_mul(0xD6E8_FEB8_6659_FD93).rotate_left(29)
    });
    let print = (mixed >> 48) as u16;
    print.max(LOOK_AGAIN + 1)
}

/// The processor time that this thread has used.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}
