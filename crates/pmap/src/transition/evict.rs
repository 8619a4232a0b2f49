//! Taking pages that the guest does not give: into the store, into the swap, or, if they hold
//! zeros, away.

use plimsoll_units::Pages;

use super::anonymous::make_anonymous;
use super::aside::bring_back;
use super::break_up::break_up;
use super::vm::Vm;
use crate::address::{ChunkNo, PAGE, PageSet, Place, Slot};
use crate::content::{Buffer, MOST_PACKED, SwapSlot, pack};
use crate::page::{Activity, Backing, PageState, Step, Table};

/// Pages that are taken under one hold of a chunk's lock. A fault in the chunk waits as long, and
/// compressing a page takes some 5 us. With fewer, each flush of the processors' address caches
/// serves fewer pages.
pub(crate) const BATCH: Slot = 64;
/// Fewest pages of a batch that are worth compressing. With fewer, the store might have to begin a
/// page, and its index another, and occupy more than was freed for it.
const FEWEST_PACKED: usize = 4;

/// The pages of a batch, by what becomes of them.
#[derive(Default)]
struct Classified {
    /// They hold zeros.
    zeros: PageSet,
    /// Compressed, as (page, length); their content one after the other.
    packed: Vec<(Slot, usize)>,
    content: Vec<u8>,
    /// Copied, for the swap.
    copied: Vec<(Slot, SwapSlot, Buffer)>,
}

/// Which of a chunk's pages may be taken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Choice<'a> {
    /// All but those that faults have brought in since this was last tried. None if the last sample
    /// saw the chunk in use.
    Idle,
    /// These, whether or not they are in use.
    These(&'a PageSet),
}

/// Makes a chunk small, and returns what that has freed, the resident pages, and those of them that
/// may be taken. Step `BreakUp`.
pub(crate) fn victims_in(vm: &Vm, no: ChunkNo, choice: Choice<'_>) -> (Pages, PageSet, PageSet) {
    let mut chunk = vm.chunk(no);
    let before = chunk.tally();
    if let Backing::Aside(_) = chunk.backing
        && let Err(error) = bring_back(&vm.memory, no, &mut chunk)
    {
        tracing::warn!(%error, "a chunk that is aside cannot be brought back to take pages from it");
    }
    if let Backing::Large = chunk.backing {
        let used = std::mem::take(&mut chunk.activity) == Activity::Used;
        if used && matches!(choice, Choice::Idle) {
            return (Pages::ZERO, PageSet::EMPTY, PageSet::EMPTY);
        }
        match break_up(&vm.memory, no) {
            Ok(table) => drop(chunk.set_backing(Backing::Small(table), Step::BreakUp)),
            Err(error) => {
                tracing::warn!(%error, "a large chunk cannot be broken up to take pages from it")
            }
        }
    }
    let (all, victims) = match &mut chunk.backing {
        Backing::Small(table) => {
            let all = table.pages(PageState::is_resident);
            let victims = match choice {
                Choice::Idle => all.minus(&std::mem::take(&mut table.recent)),
                Choice::These(pages) => all.intersection(pages),
            };
            (all, victims)
        }
        Backing::Empty { .. } | Backing::Large | Backing::Aside(_) => (PageSet::EMPTY, PageSet::EMPTY),
    };
    chunk.empty_if_uniform();
    (vm.record(before, &chunk), all, victims)
}

/// Takes those of `batch` that are resident and that no device uses; returns by how much the VM
/// holds less. Step `Evict`.
pub(crate) fn evict_batch(vm: &Vm, no: ChunkNo, batch: &PageSet) -> Pages {
    let mut chunk = vm.chunk(no);
    let before = chunk.tally();
    let batch = batch.minus(&chunk.busy());
    let Backing::Small(table) = &mut chunk.backing else { return Pages::ZERO };
    let batch = table.among(&batch, PageState::is_resident);
    let clean = table.among(&batch, |state| matches!(state, PageState::Clean(_)));
    let dirty = batch.minus(&clean);
    let freed = evict_pages(vm, no, table, &dirty, &clean);
    chunk.empty_if_uniform();
    vm.account().changed(before, chunk.tally());
    freed
}

/// Takes pages and settles their cost; returns by how much the VM holds less.
fn evict_pages(vm: &Vm, no: ChunkNo, table: &mut Table, dirty: &PageSet, clean: &PageSet) -> Pages {
    if let Err(error) = make_anonymous(&vm.memory, no, table, dirty) {
        tracing::warn!(%error, "pages cannot be taken out of the mapping of a frame, and stay");
        return Pages::ZERO;
    }
    let mut classified = match vm.memory.protect(no, dirty) {
        Ok(()) => classify(vm, no, dirty),
        Err(error) => {
            tracing::warn!(%error, "pages cannot be write-protected and stay");
            Classified::default()
        }
    };
    let chosen = classified.pages().union(clean);
    let mut gone = chosen;
    for (first, len) in chosen.runs() {
        if let Err(error) = vm.memory.discard(no, (first, len)) {
            tracing::error!(%error, "pages that were to be taken from the guest stay");
            gone = gone.minus(&PageSet::span(first, len));
        }
    }
    classified.keep_only(&gone, vm);
    // The pages that stay may be written again.
    if let Err(error) = vm.memory.unprotect(no, &dirty.minus(&gone)) {
        tracing::error!(%error, "pages stay write-protected");
    }
    settle(vm, no, table, classified, &clean.intersection(&gone), gone.count())
}

/// Gives pages that are gone their new states, and charges the store for what it holds now.
fn settle(
    vm: &Vm,
    no: ChunkNo,
    table: &mut Table,
    classified: Classified,
    clean: &PageSet,
    gone: Pages,
) -> Pages {
    {
        let mut account = vm.account();
        account.traffic.zeros += classified.zeros.count().0;
        account.traffic.zipped += classified.packed.len() as u64;
        account.traffic.swapped_out += classified.copied.len() as u64 + clean.count().0;
    }
    for slot in clean.iter() {
        if let PageState::Clean(copy) = table.get(slot) {
            table.set(slot, PageState::Swapped(copy), Step::Evict);
        }
    }
    table.set_all(&classified.zeros, PageState::Zero, Step::Evict);
    let owner = |slot| Place { chunk: no, slot }.index();
    let leave = |(slot, to, buffer)| {
        table.set(slot, PageState::Leaving(to), Step::Evict);
        (to, owner(slot), buffer)
    };
    let writes = classified.copied.into_iter().map(leave).collect();
    if let Some(swap) = vm.content.swap() {
        swap.write(writes);
    }
    let mut content = classified.content.as_slice();
    vm.content.in_store(&vm.ledger, gone, |store| {
        let before = store.pages();
        for (slot, len) in classified.packed {
            let packed = content.split_off(..len).expect("what was appended, page by page");
            let handle = store.insert(owner(slot), packed).expect("there is room for a batch");
            table.set(slot, PageState::Compressed(handle), Step::Evict);
        }
        (gone + before).saturating_sub(store.pages())
    })
}

/// Reads write-protected pages and decides what becomes of them. Pages that are left out stay.
fn classify(vm: &Vm, no: ChunkNo, pages: &PageSet) -> Classified {
    let mut classified = Classified::default();
    let mut page = Box::new([0; PAGE]);
    let mut packed = [0; MOST_PACKED];
    let room = vm.content.store_has_room_for(BATCH.into());
    let mut bulky = PageSet::EMPTY;
    for slot in pages.iter() {
        vm.memory.read_page(Place { chunk: no, slot }, &mut page);
        if is_zero(&page) {
            classified.zeros.insert(slot);
        } else if let Some(len) = room.then(|| pack(&page, &mut packed)).flatten() {
            classified.packed.push((slot, len));
            classified.content.extend_from_slice(&packed[..len]);
        } else {
            bulky.insert(slot);
        }
    }
    if classified.packed.len() < FEWEST_PACKED {
        bulky = bulky.union(&classified.packed.drain(..).map(|(slot, _)| slot).collect());
        classified.content.clear();
    }
    classified.copied = copy_for_swap(vm, no, &bulky);
    classified
}

/// Copies pages into write buffers, each with a slot of the swap, as far as there are both.
fn copy_for_swap(vm: &Vm, no: ChunkNo, pages: &PageSet) -> Vec<(Slot, SwapSlot, Buffer)> {
    let Some(swap) = vm.content.usable_swap() else { return Vec::new() };
    let mut copied = Vec::new();
    let slots = swap.reserve(Slot::try_from(pages.count().0).unwrap_or(BATCH));
    let mut pages = pages.iter();
    for to in slots {
        let next = pages.next().zip(swap.buffer());
        let Some((slot, mut buffer)) = next else {
            swap.free(to);
            continue;
        };
        vm.memory.read_page(Place { chunk: no, slot }, &mut buffer);
        copied.push((slot, to, buffer));
    }
    copied
}

impl Classified {
    /// Leaves all pages out that are not `gone`.
    fn keep_only(&mut self, gone: &PageSet, vm: &Vm) {
        if self.pages().minus(gone).is_empty() {
            return;
        }
        self.zeros = self.zeros.intersection(gone);
        let mut content = std::mem::take(&mut self.content).into_iter();
        self.packed.retain(|&(slot, len)| {
            let packed = content.by_ref().take(len);
            let stays = gone.contains(slot);
            if stays {
                self.content.extend(packed)
            } else {
                packed.for_each(drop)
            }
            stays
        });
        for (_, to, _) in self.copied.extract_if(.., |(slot, ..)| !gone.contains(*slot)) {
            if let Some(swap) = vm.content.swap() {
                swap.free(to);
            }
        }
    }

    fn pages(&self) -> PageSet {
        let packed = self.packed.iter().map(|&(slot, _)| slot);
        let copied = self.copied.iter().map(|&(slot, ..)| slot);
        packed.chain(copied).collect::<PageSet>().union(&self.zeros)
    }
}

pub(crate) fn is_zero(page: &[u8; PAGE]) -> bool {
    page.chunks_exact(256).all(|part| part.iter().fold(0, |any, byte| any | byte) == 0)
}
