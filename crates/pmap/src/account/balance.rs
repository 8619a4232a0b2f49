#[cfg(test)]
mod tests;

use plimsoll_units::Pages;

use super::stall::{StallClock, Stalled};
use super::tally::{Kind, Tally};
use super::waiting::{Need, Reservation, Waiting};
use crate::address::{ChunkNo, PageSet, Place};

/// The VM's account of machine memory: its grant, what it holds, and the faults that wait.
///
/// `held <= grant` at every moment (invariant 1). Memory is charged before the kernel may provide
/// it and uncharged after it is gone, so `held` is never less than what is resident. To charge or
/// to queue is one step under the account's lock, and so is to make room and to choose the fault
/// that gets it. So no fault is queued after the room for it was made.
#[derive(Debug, Default)]
pub(crate) struct Account {
    grant: Pages,
    held: Pages,
    /// The part of `held` that the store of compressed pages occupies.
    store: Pages,
    ballooned: Pages,
    compressed: Pages,
    swapped: Pages,
    shared: Pages,
    zero: Pages,
    mappings: u64,
    chunks: [u64; 3],
    faults: u64,
    waits: u64,
    arrivals: u64,
    pub(crate) traffic: Traffic,
    pub(crate) sharing: SharingTraffic,
    waiting: Waiting,
    /// Pages that are being read from the swap, and that faults wait for.
    awaited: Pages,
    pub(crate) stalls: StallClock,
    reported: Pages,
    reporting: bool,
}

/// Pages that were compressed and swapped, and brought back, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Put into the store of compressed pages.
    pub zipped: u64,
    /// Brought back from it, because they were touched.
    pub unzipped: u64,
    /// Taken from the guest or the store for the swap, those that were in it already included.
    pub swapped_out: u64,
    /// Read from the swap, because they or their neighbours were touched.
    pub swapped_in: u64,
    /// Found to hold nothing but zeros, and dropped.
    pub zeros: u64,
}

/// What became of pages that were to be shared, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharingTraffic {
    /// Looked at.
    pub scanned: u64,
    /// Read and digested: the others had not changed.
    pub hashed: u64,
    /// Shared.
    pub merged: u64,
    /// Found to hold nothing but zeros, and dropped.
    pub zeroed: u64,
    /// Shared ones, and dropped ones, that became private again.
    pub broken: u64,
    /// Found to differ from the frame that was named for them.
    pub mismatched: u64,
}

impl Account {
    pub(crate) fn new(grant: Pages, chunks: usize) -> Self {
        Self { grant, chunks: [chunks as u64, 0, 0], ..Self::default() }
    }

    pub(crate) fn grant(&self) -> Pages {
        self.grant
    }

    pub(crate) fn held(&self) -> Pages {
        self.held
    }

    pub(crate) fn ballooned(&self) -> Pages {
        self.ballooned
    }

    pub(crate) fn store(&self) -> Pages {
        self.store
    }

    pub(crate) fn compressed(&self) -> Pages {
        self.compressed
    }

    pub(crate) fn swapped(&self) -> Pages {
        self.swapped
    }

    pub(crate) fn shared(&self) -> Pages {
        self.shared
    }

    pub(crate) fn zero(&self) -> Pages {
        self.zero
    }

    /// Pages that are being read from the swap, and that faults wait for.
    pub(crate) fn awaited(&self) -> Pages {
        self.awaited
    }

    /// Mappings beyond one for each chunk, for pages that are, or were, shared.
    pub(crate) fn mappings(&self) -> u64 {
        self.mappings
    }

    pub(crate) fn chunks(&self, kind: Kind) -> u64 {
        self.chunks[kind as usize]
    }

    pub(crate) fn faults(&self) -> u64 {
        self.faults
    }

    pub(crate) fn waits(&self) -> u64 {
        self.waits
    }

    /// Pages that faults have brought in since the start.
    pub(crate) fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// Pages that the waiting faults need beyond the grant.
    pub(crate) fn wanted(&self) -> Pages {
        (self.held + self.waiting.need()).saturating_sub(self.grant)
    }

    fn slack(&self) -> Pages {
        self.grant - self.held
    }

    /// Up to `most` pages of the grant that are not used, and that no fault waits for.
    fn spare(&self, most: Pages) -> Pages {
        if self.waiting.need() == Pages::ZERO { most.min(self.slack()) } else { Pages::ZERO }
    }

    /// Charges what a fault needs and returns how much that is; or queues the fault and returns
    /// `None`.
    pub(crate) fn charge_or_wait(&mut self, place: Place, need: Need) -> Option<Pages> {
        self.faults += 1;
        let pages = match need {
            Need::Chunk => Pages::CHUNK,
            Need::Page => Pages(1),
        };
        if self.slack() >= pages {
            self.held += pages;
            return Some(pages);
        }
        self.wait(place, need);
        None
    }

    /// Charges up to `most` pages, as far as the grant has room and no fault waits; returns how
    /// many.
    pub(crate) fn charge_spare(&mut self, most: Pages) -> Pages {
        let spare = self.spare(most);
        self.held += spare;
        spare
    }

    /// Queues a fault.
    pub(crate) fn wait(&mut self, place: Place, need: Need) {
        self.waits += 1;
        self.waiting.push(place, need);
        self.observe_stalls();
    }

    /// The next waiting faults that can be served, with their pages charged.
    pub(crate) fn next_reservation(&mut self) -> Option<Reservation> {
        let reservation = self.waiting.next(self.slack())?;
        self.held += reservation.reserved;
        self.observe_stalls();
        Some(reservation)
    }

    /// Uncharges pages that are not used, or not any more.
    pub(crate) fn uncharge(&mut self, pages: Pages) {
        self.held -= pages;
    }

    /// Records how many charged pages a fault has brought in.
    pub(crate) fn arrived(&mut self, pages: Pages) {
        self.arrivals += pages.0;
    }

    /// Records that the store occupies `after` pages instead of `before`, and that `freed` other
    /// pages were given up for it.
    pub(crate) fn store_changed(&mut self, before: Pages, after: Pages, freed: Pages) {
        self.store = self.store + after - before;
        self.held += after;
        self.uncharge(before + freed);
    }

    /// Records a chunk's change of state. The caller charges and uncharges `held`.
    pub(crate) fn changed(&mut self, from: Tally, to: Tally) {
        self.chunks[from.kind as usize] -= 1;
        self.chunks[to.kind as usize] += 1;
        self.ballooned = self.ballooned + to.ballooned - from.ballooned;
        self.compressed = self.compressed + to.compressed - from.compressed;
        self.swapped = self.swapped + to.swapped - from.swapped;
        self.shared = self.shared + to.shared - from.shared;
        self.zero = self.zero + to.zero - from.zero;
        self.mappings = self.mappings + to.mappings - from.mappings;
        self.awaited = self.awaited + to.awaited - from.awaited;
        self.observe_stalls();
    }

    /// Records that pages of a chunk are present: see [`Waiting::served`].
    pub(crate) fn served(&mut self, chunk: ChunkNo, pages: impl FnOnce() -> PageSet) {
        self.waiting.served(chunk, pages);
        self.observe_stalls();
    }

    pub(crate) fn add_grant(&mut self, pages: Pages) {
        self.grant = self.grant.saturating_add(pages);
    }

    /// Records that the source has answered: see [`Waiting::accept_pages`].
    pub(crate) fn accept_pages(&mut self) {
        self.waiting.accept_pages();
    }

    /// Lowers the grant to what is held and waited for, and `keep` more; returns by how much.
    pub(crate) fn return_grant(&mut self, keep: Pages) -> Pages {
        let floor = self.held.saturating_add(self.waiting.need()).saturating_add(keep);
        let given = self.grant.saturating_sub(floor);
        self.grant -= given;
        given
    }

    /// Lowers the grant by up to `most` pages, as far as they are not used and no fault waits;
    /// returns by how many.
    pub(crate) fn pay_for_frames(&mut self, most: Pages) -> Pages {
        let spare = self.spare(most);
        self.grant -= spare;
        spare
    }

    pub(crate) fn forget_waiting(&mut self) {
        self.waiting.clear();
        self.observe_stalls();
    }

    /// Time stalled so far, the stall that lasts included.
    pub(crate) fn stalled(&self) -> Stalled {
        self.stalls.so_far()
    }

    fn observe_stalls(&mut self) {
        self.stalls.observe(self.waiting.faults() + self.awaited.0);
    }

    /// The shortfall to report, if it has changed and no other thread is reporting. The caller
    /// reports it, and calls [`Account::next_report`] until that returns nothing. So the source
    /// hears changes in order, from one thread at a time, and may call back.
    pub(crate) fn start_report(&mut self) -> Option<Pages> {
        if self.reporting {
            return None;
        }
        self.reporting = true;
        self.next_report()
    }

    pub(crate) fn next_report(&mut self) -> Option<Pages> {
        let wanted = self.wanted();
        self.reporting = wanted != self.reported;
        self.reported = wanted;
        self.reporting.then_some(wanted)
    }
}
