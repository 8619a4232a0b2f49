use std::sync::Once;

use plimsoll_units::Pages;
use vmm_sys_util::eventfd::EventFd;

use crate::chunk::{Backing, Chunk, PageState, Table};
use crate::error::Error;
use crate::host_range::{HostRange, PAGE};
use crate::layout::{ChunkNo, Place};
use crate::mutation::Mutation;
use crate::page_set::{PageSet, Slot};
use crate::pmap::Pmap;
use crate::uffd::Fault;
use crate::waiting::Need;

impl Pmap {
    /// Serves page faults until `stop` is readable. Run it on a thread of its own; two may run side by side.
    ///
    /// This thread waits for nothing but faults: one that the grant does not cover is queued, and whoever makes room
    /// serves it. It never touches guest memory, where it would wait for itself.
    ///
    /// # Errors
    /// [`Error::Uffd`] where faults can no longer be read. Whatever touches absent memory then hangs, so the VM must
    /// be stopped.
    pub fn serve_faults(&self, stop: &EventFd) -> Result<(), Error> {
        let failed = |source| Error::Uffd { action: "read page faults", source };
        while !self.uffd.wait(stop).map_err(failed)? {
            let faults = self.uffd.read().map_err(failed)?;
            faults.into_iter().for_each(|fault| self.fault(fault));
        }
        Ok(())
    }

    /// Answers one fault, or queues it.
    fn fault(&self, fault: Fault) {
        let Some(offset) = self.mapping.offset_of(fault.address) else {
            tracing::error!(address = fault.address, "a page fault outside guest RAM");
            return;
        };
        let Place { chunk: no, slot } = Place::of((offset / PAGE) as u64);
        let mut chunk = self.chunk(no);
        self.note_touch(no, &mut chunk, slot);
        let mut left = Pages::ZERO;
        match self.need(&chunk, slot) {
            Some(need) => {
                // A statement of its own: the account must be unlocked again before the page is provided.
                let charged = self.account().charge_or_wait(Place { chunk: no, slot }, need);
                if let Some(charged) = charged {
                    left = self.populate(no, &mut chunk, &PageSet::one(slot), charged, fault.write);
                }
            }
            // Somebody has served the page, or the chunk, since the fault was sent.
            None => self.wake(no, slot),
        }
        drop(chunk);
        if left == Pages::ZERO { self.tell_source() } else { self.serve_waiting() }
    }

    /// What a fault on page `slot` needs, or `None` where the page is there.
    fn need(&self, chunk: &Chunk, slot: Slot) -> Option<Need> {
        match &chunk.backing {
            // What is still aside could not be brought back: the touch tries again.
            Backing::Large | Backing::Aside(_) => None,
            Backing::Empty { ballooned: false } if self.huge_pages => Some(Need::Chunk),
            // One page of a ballooned chunk was touched: the others stay in the balloon.
            Backing::Empty { .. } => Some(Need::Page),
            Backing::Small(table) if table.get(slot) == PageState::Private => None,
            Backing::Small(_) => Some(Need::Page),
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
            self.populate(turn.chunk, &mut chunk, &turn.pages, turn.reserved, true);
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
    /// the pages for which they do not suffice. Uncharges what is not used, and returns how much that was.
    fn populate(
        &self,
        no: ChunkNo,
        chunk: &mut Chunk,
        pages: &PageSet,
        charged: Pages,
        write: bool,
    ) -> Pages {
        let before = chunk.tally();
        let mut left = charged;
        let may_grow = matches!(chunk.backing, Backing::Empty { ballooned: false });
        if may_grow && charged >= Pages::CHUNK && self.enlarge(no, chunk) {
            left -= Pages::CHUNK;
            if self.mutations.has(Mutation::UnchargedLarge) {
                self.account().uncharge(Pages::CHUNK);
            }
        } else if let Some(table) = chunk.small_table() {
            pages.iter().for_each(|slot| self.provide(Place { chunk: no, slot }, table, &mut left, write));
            chunk.empty_if_uniform();
        } else {
            pages.iter().for_each(|slot| self.wake(no, slot));
        }
        let mut account = self.account();
        account.changed(before, chunk.tally());
        account.uncharge(left);
        account.arrived(charged - left);
        // A fault may have passed the queue, if it came just when there was room again.
        account.served(no, &chunk.present());
        left
    }

    /// Lets the kernel serve an empty chunk from now on; false where it will not, because the VM has too many
    /// mappings already. Its first touch gets a huge page if there is one.
    fn enlarge(&self, no: ChunkNo, chunk: &mut Chunk) -> bool {
        match self.uffd.disarm(self.chunk_range(no)) {
            Ok(()) => {
                chunk.backing = Backing::Large;
                true
            }
            Err(error) => {
                // Said once: a guest can bring this about as often as it likes.
                static SAID: Once = Once::new();
                SAID.call_once(|| tracing::warn!(%error, "chunks stay small: raise vm.max_map_count"));
                false
            }
        }
    }

    /// Provides one page of a small chunk, for one page of `left`.
    fn provide(&self, place: Place, table: &mut Table, left: &mut Pages, write: bool) {
        let Place { chunk: no, slot } = place;
        if table.get(slot) == PageState::Private {
            return self.wake(no, slot);
        }
        if *left == Pages::ZERO {
            return self.account().wait(place, Need::Page);
        }
        let address = self.page_address(no, slot);
        let wake = !self.mutations.has(Mutation::NoWake);
        // A page that is only read costs no memory until it is written; it is charged all the same, because the
        // kernel does not ask when it is.
        let filled = if write { self.uffd.fill(address, wake) } else { self.uffd.map_zero(address, wake) };
        match filled {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                tracing::error!(ppn = self.layout.ppn(no, slot).0, "a page thought absent was there");
                self.wake(no, slot);
            }
            // The host has no memory although it granted some, or the process is ending. The thread tries again.
            Err(error) => {
                tracing::error!(%error, ppn = self.layout.ppn(no, slot).0, "cannot provide a page");
                return self.wake(no, slot);
            }
        }
        table.set(slot, PageState::Private);
        *left -= Pages(1);
    }

    /// Lets whoever waits for a page try again.
    fn wake(&self, no: ChunkNo, slot: Slot) {
        let range = HostRange { start: self.page_address(no, slot), len: PAGE as u64 };
        if let Err(error) = self.uffd.wake(range) {
            tracing::error!(%error, "cannot wake who waits for a page");
        }
    }
}
