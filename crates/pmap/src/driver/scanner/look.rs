//! Finding what is new in a chunk: pages that hold zeros, and digests of pages that have changed.

use plimsoll_units::{PageDigest, Pages};

use super::notes::{LINE, Note, Notes, STALE, Scan, fingerprint, line, looked_up, skipped_pages};
use crate::address::{CHUNK, ChunkNo, PAGE, PageSet, Place, SLOTS, Slot};
use crate::content::FrameSource;
use crate::page::{Backing, Chunk, PageState};
use crate::transition::Vm;

/// Pages that are read under one hold of a chunk's lock, in some 30 us: nearly all of that is for
/// digests.
const BATCH: Slot = 16;
/// In one of this many passes each page is read, whether or not it seems to have changed.
const FULL_PASS: u32 = 16;
/// One in this many pages is looked at to see whether a chunk has changed; other ones in each pass.
const STRIDE: u32 = 4;

/// Pages of a chunk that may be shared.
#[derive(Default)]
pub(super) struct Candidates {
    pub(super) looked_at: u64,
    pub(super) zeros: PageSet,
    pub(super) digests: Vec<(Slot, PageDigest)>,
}

/// Finds what is new in a chunk: pages that hold zeros, and, where there is a source of frames, the
/// digests of others that have changed.
pub(super) fn look_at(vm: &Vm, scan: &mut Scan, no: ChunkNo, source: Option<&dyn FrameSource>) -> Candidates {
    let mut candidates = Candidates::default();
    let Some(pages) = pages_to_scan(vm, no, &mut scan.notes[no.0]) else {
        return candidates;
    };
    candidates.looked_at = pages.count().0;
    let Some(notes) = &mut scan.notes[no.0] else { return candidates };
    let full_pass = scan.pass.is_multiple_of(FULL_PASS);
    if !full_pass && seems_unchanged(vm, no, notes, &pages, scan.pass) {
        return candidates;
    }
    let mut left = pages;
    let mut page = Box::new([0; PAGE]);
    while !left.is_empty() {
        let batch = left.first(Pages(BATCH.into()));
        left = left.minus(&batch);
        let chunk = vm.chunk(no);
        let there = match &chunk.backing {
            Backing::Large | Backing::Aside(_) => PageSet::FULL,
            Backing::Small(table) => table.pages(PageState::is_resident),
            Backing::Empty { .. } => return candidates,
        };
        let start = pages_of(vm, no, &chunk);
        for slot in batch.intersection(&there).iter() {
            let (offset, note) = (start + usize::from(slot) * PAGE, &mut notes[usize::from(slot)]);
            if !full_pass && note.fingerprint != 0 && note.fingerprint == fingerprint_at(vm, offset, slot) {
                continue;
            }
            if vm.memory.is_zero_at(offset) {
                note.fingerprint = STALE;
                candidates.zeros.insert(slot);
            } else if let Some(source) = source {
                vm.memory.read_at(offset, &mut page[..]);
                note.fingerprint = fingerprint(&page[line(slot)..][..LINE]);
                candidates.digests.push((slot, source.digest(&page)));
            } else {
                note.fingerprint = fingerprint_at(vm, offset, slot);
            }
        }
    }
    candidates
}

/// The pages of a chunk that are present and not skipped; `None` if there are none.
fn pages_to_scan(vm: &Vm, no: ChunkNo, notes: &mut Option<Box<Notes>>) -> Option<PageSet> {
    let mut chunk = vm.chunk(no);
    let busy = chunk.busy();
    let (pages, broken) = match &mut chunk.backing {
        Backing::Large | Backing::Aside(_) => {
            // A read would bring in a missing page. A page that was present once still is, or costs
            // nothing more.
            let known = notes.as_ref().map(|notes| looked_up(notes)).filter(|known| !known.is_empty());
            let start = pages_of(vm, no, &chunk);
            (known.or_else(|| vm.memory.backed_at(start).ok())?, PageSet::EMPTY)
        }
        Backing::Small(table) => (table.pages(PageState::is_resident), std::mem::take(&mut table.broken)),
        Backing::Empty { .. } => return None,
    };
    drop(chunk);
    let notes = notes.get_or_insert_with(|| Box::new([Note::default(); SLOTS as usize]));
    let skipped = skipped_pages(notes, &pages, &broken);
    Some(pages.minus(&busy).minus(&skipped)).filter(|pages| !pages.is_empty())
}

/// Whether a sample of a chunk's pages is as it was when they were last looked up.
fn seems_unchanged(vm: &Vm, no: ChunkNo, notes: &Notes, pages: &PageSet, pass: u32) -> bool {
    let chunk = vm.chunk(no);
    let there = match &chunk.backing {
        Backing::Large | Backing::Aside(_) => *pages,
        Backing::Small(table) => table.among(pages, PageState::is_resident),
        Backing::Empty { .. } => return true,
    };
    let start = pages_of(vm, no, &chunk);
    let turn = |slot: &Slot| u32::from(*slot) % STRIDE == pass % STRIDE;
    there.iter().filter(turn).all(|slot| {
        let known = notes[usize::from(slot)].fingerprint;
        known != 0 && known == fingerprint_at(vm, start + usize::from(slot) * PAGE, slot)
    })
}

/// Where the pages of a chunk are mapped: in guest RAM, or behind it while it is set aside. Reading
/// them there counts as no touch.
fn pages_of(vm: &Vm, no: ChunkNo, chunk: &Chunk) -> usize {
    if let Backing::Aside(spare) = chunk.backing { vm.memory.spare_offset(spare) } else { no.0 * CHUNK }
}

fn fingerprint_at(vm: &Vm, offset: usize, slot: Slot) -> u16 {
    let mut bytes = [0; LINE];
    vm.memory.read_at(offset + line(slot), &mut bytes);
    fingerprint(&bytes)
}

/// The digest of a page; `None` if it is not resident.
pub(super) fn digest_of(vm: &Vm, source: &dyn FrameSource, place: Place) -> Option<PageDigest> {
    let chunk = vm.chunk(place.chunk);
    let Backing::Small(table) = &chunk.backing else { return None };
    let mut page = [0; PAGE];
    table.get(place.slot).is_resident().then(|| {
        vm.memory.read_page(place, &mut page);
        source.digest(&page)
    })
}
