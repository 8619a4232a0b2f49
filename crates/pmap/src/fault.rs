use std::os::fd::AsFd;
use std::sync::Once;

use plimsoll_units::Pages;
use vmm_sys_util::eventfd::EventFd;

use crate::aside::Evidence;
use crate::chunk::{Backing, Chunk};
use crate::error::Error;
use crate::host_range::PAGE;
use crate::layout::{ChunkNo, Place};
use crate::mutation::Mutation;
use crate::page_set::{PageSet, Slot};
use crate::pmap::Pmap;
use crate::swap::{Swap, SwapSlot};
use crate::sync::MutexGuard;
use crate::table::{PageState, Table};
use crate::touch::Touch;
use crate::uffd::{Access, Fault};
use crate::waiting::Need;

/// What a fault finds where it struck.
enum Found {
    /// The page, for somebody has provided it since the fault was sent.
    There,
    /// The page, write-protected because the swap holds the same; and it is to be written.
    Protected(SwapSlot),
    /// A page that is being read from the swap: its arrival wakes who waits.
    Coming,
    /// Nothing, until this much is charged.
    Missing(Need),
}

impl Pmap {
    /// Serves page faults until `stop` is readable. Run it on a thread of its own; two may run side by side.
    ///
    /// This thread waits for nothing but faults and the swap's answers: a fault that the grant does not cover is
    /// queued, and whoever makes room serves it; a page in the swap is asked for, and put in place when it comes. It
    /// never touches guest memory, where it would wait for itself.
    ///
    /// # Errors
    /// [`Error::Uffd`] where faults can no longer be read. Whatever touches absent memory then hangs, so the VM must
    /// be stopped.
    pub fn serve_faults(&self, stop: &EventFd) -> Result<(), Error> {
        let failed = |source| Error::Uffd { action: "read page faults", source };
        let swap = self.swap.as_ref().map(AsFd::as_fd);
        loop {
            let ready = self.uffd.wait(stop, swap).map_err(failed)?;
            if ready.stop {
                return Ok(());
            }
            let faults = self.uffd.read().map_err(failed)?;
            faults.into_iter().for_each(|fault| self.fault(fault));
            // What these faults have asked the swap for is begun without another turn.
            if ready.other || self.swap.as_ref().is_some_and(Swap::is_queued) {
                self.settle_swap();
            }
        }
    }

    /// Answers one fault, or queues it.
    fn fault(&self, fault: Fault) {
        let Some(offset) = self.mapping.offset_of(fault.address) else {
            tracing::error!(address = fault.address, "a page fault outside guest RAM");
            return;
        };
        let place = Place::of((offset / PAGE) as u64);
        let touch = if fault.write { Touch::Write } else { Touch::Read };
        let chunk = self.chunk(place.chunk);
        self.answer(place, chunk, touch);
    }

    /// Asks for a page that a device is about to use, as a write by the device would, without
    /// waiting for it. Does nothing where the page is there.
    pub(crate) fn demand(&self, place: Place) {
        let chunk = self.chunk(place.chunk);
        let there = match &chunk.backing {
            Backing::Large => true,
            Backing::Small(table) => table.get(place.slot) == PageState::Private,
            Backing::Empty { .. } | Backing::Aside(_) => false,
        };
        if !there {
            self.answer(place, chunk, Touch::Write);
        }
    }

    /// Answers a touch of a page, or queues it.
    fn answer(&self, place: Place, mut chunk: MutexGuard<'_, Chunk>, touch: Touch) {
        self.note_touch(place, &mut chunk);
        let before = chunk.tally();
        match self.find(&mut chunk, place.slot, touch) {
            Found::There if touch == Touch::Write => self.let_write(place),
            Found::There => self.wake(place),
            // It may have been read ahead until now, and is waited for from now on.
            Found::Coming => {
                self.record(before, &chunk);
            }
            Found::Protected(copy) => self.make_dirty(place, &mut chunk, copy),
            Found::Missing(need) => {
                // A statement of its own: the account must be unlocked again before the page is provided.
                let charged = self.account().charge_or_wait(place, need);
                if let Some(charged) = charged {
                    let page = PageSet::one(place.slot);
                    self.populate(place.chunk, &mut chunk, &page, charged, touch);
                }
            }
        }
        drop(chunk);
        // Not all of the charge may have been used; and the store is smaller now if the page was in it.
        self.serve_waiting();
    }

    fn find(&self, chunk: &mut Chunk, slot: Slot, touch: Touch) -> Found {
        match &mut chunk.backing {
            // What is still aside could not be brought back: the touch tries again.
            Backing::Large | Backing::Aside(_) => Found::There,
            Backing::Empty { ballooned: false, .. } if self.huge_pages => Found::Missing(Need::Chunk),
            // One page of a ballooned chunk was touched: the others stay in the balloon.
            Backing::Empty { .. } => Found::Missing(Need::Page),
            Backing::Small(table) => match table.get(slot) {
                PageState::Private | PageState::Aside(_) => Found::There,
                PageState::Clean(copy) if touch == Touch::Write => Found::Protected(copy),
                PageState::Clean(_) => Found::There,
                PageState::Arriving { from, touch: before } => {
                    table.set(slot, PageState::Arriving { from, touch: touch.max(before) });
                    Found::Coming
                }
                PageState::Shared(_) if touch == Touch::Read => Found::There,
                PageState::Absent
                | PageState::Zero
                | PageState::Shared(_)
                | PageState::Ballooned
                | PageState::Compressed(_)
                | PageState::Leaving(_)
                | PageState::Swapped(_) => Found::Missing(Need::Page),
            },
        }
    }

    /// Serves those who wait, as far as the grant goes, and tells the source what is still wanted. Called, without
    /// any lock, by whoever has made room.
    pub(crate) fn serve_waiting(&self) {
        loop {
            // A statement of its own: the account's lock is taken after a chunk's, never before.
            let turn = self.account().next_turn();
            let Some(turn) = turn else { break };
            let mut chunk = self.chunk(turn.chunk);
            self.populate(turn.chunk, &mut chunk, &turn.pages, turn.reserved, Touch::Unknown);
        }
        self.tell_source();
    }

    /// Serves those who wait from what was `freed`, and tells the source that there may be more than they need.
    pub(crate) fn serve_freed(&self, freed: Pages) {
        self.serve_waiting();
        if freed > Pages::ZERO {
            self.tell_freed();
        }
    }

    /// Provides `pages` of a chunk with the `charged` pages, as far as they go, and wakes who waits for them. Queues
    /// the pages for which they do not suffice, and uncharges what is not used.
    fn populate(&self, no: ChunkNo, chunk: &mut Chunk, pages: &PageSet, charged: Pages, touch: Touch) {
        let before = chunk.tally();
        let mut left = charged;
        let may_grow = matches!(chunk.backing, Backing::Empty { ballooned: false, .. });
        if may_grow && charged >= Pages::CHUNK && self.enlarge(no, chunk) {
            left -= Pages::CHUNK;
            if self.mutations.has(Mutation::UnchargedLarge) {
                self.account().uncharge(Pages::CHUNK);
            }
        } else if let Some(table) = chunk.small_table() {
            pages.iter().for_each(|slot| self.provide(Place { chunk: no, slot }, table, &mut left, touch));
            self.let_frames_go(no, chunk);
            chunk.empty_if_uniform();
        } else {
            pages.iter().for_each(|slot| self.wake(Place { chunk: no, slot }));
        }
        let mut account = self.account();
        account.changed(before, chunk.tally());
        account.uncharge(left);
        account.arrived(charged - left);
        // A fault may have passed the queue, if it came just when there was room again.
        account.served(no, || chunk.served());
    }

    /// Lets the kernel serve an empty chunk from now on; false where it will not, because the VM has too many
    /// mappings already. Its first touch gets a huge page if there is one.
    fn enlarge(&self, no: ChunkNo, chunk: &mut Chunk) -> bool {
        match self.uffd.disarm(self.chunk_range(no)) {
            Ok(()) => {
                chunk.backing = Backing::Large;
                chunk.evidence = Evidence::Used;
                true
            }
            Err(error) => {
                warn_of_mappings(&error);
                false
            }
        }
    }

    /// Provides one page of a small chunk, for one page of `left`.
    pub(crate) fn provide(&self, place: Place, table: &mut Table, left: &mut Pages, touch: Touch) {
        let slot = place.slot;
        let state = table.get(slot);
        match state {
            PageState::Private | PageState::Clean(_) | PageState::Aside(_) => return self.wake(place),
            PageState::Arriving { .. } => return,
            _ if *left == Pages::ZERO => return self.account().wait(place, Need::Page),
            PageState::Swapped(from) => {
                *left -= Pages(1);
                return self.fetch(place, table, from, touch);
            }
            PageState::Shared(frame) => {
                if self.break_page(place, table, frame) {
                    *left -= Pages(1);
                }
                return;
            }
            PageState::Absent
            | PageState::Zero
            | PageState::Ballooned
            | PageState::Compressed(_)
            | PageState::Leaving(_) => {}
        }
        let address = self.page_address(place);
        let wake = !self.mutations.has(Mutation::NoWake);
        let provided = match self.content(state) {
            Some(content) => self.uffd.put(address, &content, Access::Full, wake),
            // A page that is only read costs no memory until it is written; it is charged all the same, because the
            // kernel does not ask when it is.
            None if touch == Touch::Read => self.uffd.map_zero(address, wake),
            None => self.uffd.fill(address, wake),
        };
        match provided {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                tracing::error!(ppn = self.ppn(place).0, "a page thought absent was there");
                self.unprotect(place.chunk, &PageSet::one(slot)).ok();
            }
            // The host has no memory although it granted some, or the process is ending. The thread tries again.
            Err(error) => {
                tracing::error!(%error, ppn = self.ppn(place).0, "cannot provide a page");
                return self.wake(place);
            }
        }
        table.set(slot, PageState::Private);
        table.recent.insert(slot);
        *left -= Pages(1);
        match state {
            PageState::Compressed(_) => self.account().traffic.unzipped += 1,
            PageState::Zero => {
                table.broken.insert(slot);
                self.account().sharing.broken += 1;
            }
            _ => {}
        }
        self.forget([state]);
    }

    /// A page whose copy in the swap is as good as it is about to be written: from now on it is not.
    fn make_dirty(&self, place: Place, chunk: &mut Chunk, copy: SwapSlot) {
        let Backing::Small(table) = &mut chunk.backing else { return };
        if let Err(error) = self.unprotect(place.chunk, &PageSet::one(place.slot)) {
            tracing::error!(%error, ppn = self.ppn(place).0, "cannot let a page be written");
            return self.wake(place);
        }
        table.set(place.slot, PageState::Private);
        self.forget([PageState::Clean(copy)]);
    }

    /// A page is there that may be written, and yet somebody waits to: another fault was faster, or it could not be unprotected
    /// when that was due. Only waking would then have it ask for ever.
    fn let_write(&self, place: Place) {
        // What is not armed cannot be protected.
        if self.unprotect(place.chunk, &PageSet::one(place.slot)).is_err() {
            self.wake(place);
        }
    }

    /// Lets whoever waits for a page try again.
    pub(crate) fn wake(&self, place: Place) {
        self.wake_run(place.chunk, (place.slot, 1));
    }

    /// Lets whoever waits for one of these pages, or for one between them, try again.
    pub(crate) fn wake_all(&self, no: ChunkNo, pages: &PageSet) {
        pages.hull().into_iter().for_each(|run| self.wake_run(no, run));
    }

    /// Lets whoever waits for a page of a run try again.
    pub(crate) fn wake_run(&self, no: ChunkNo, run: (Slot, Slot)) {
        if let Err(error) = self.uffd.wake(self.run_range(no, run)) {
            tracing::error!(%error, "cannot wake who waits for a page");
        }
    }
}

/// The kernel will not give a chunk a mapping of its own. Said once: a guest can bring this about as often as it likes.
pub(crate) fn warn_of_mappings(error: &std::io::Error) {
    static SAID: Once = Once::new();
    SAID.call_once(|| tracing::warn!(%error, "chunks stay small: raise vm.max_map_count"));
}
