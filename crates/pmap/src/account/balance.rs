use plimsoll_units::Pages;

use super::stall::{StallClock, Stalled};
use super::tally::{Kind, Tally};
use super::waiting::{Need, Turn, Waiting};
use crate::address::{ChunkNo, PageSet, Place};

/// The VM's account of machine memory: what it was granted, what it holds, who waits.
///
/// `held <= grant` at every moment (invariant 1). Memory is charged before the kernel may provide it and uncharged
/// after it is gone, so `held` is never less than what is resident. Charging and queueing are one step under the
/// account's lock, and so are making room and choosing who gets it: nobody can go to sleep past the grant that would
/// have served him.
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
    told: Pages,
    telling: bool,
}

/// Pages that went to and fro, since the start.
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
    /// How many of them were read and hashed: the others had not changed.
    pub hashed: u64,
    /// Shared.
    pub merged: u64,
    /// Found to hold nothing but zeros, and dropped.
    pub zeroed: u64,
    /// Shared ones, and dropped ones, that became private again.
    pub broken: u64,
    /// Whose content was not that of the frame that was named for them.
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

    /// Charges what a fault needs and returns how much that is; or queues the fault and returns `None`.
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

    /// Charges up to `most` pages that nobody waits for, as far as there is slack, and returns how many.
    pub(crate) fn charge_spare(&mut self, most: Pages) -> Pages {
        let spare = if self.waiting.need() == Pages::ZERO { most.min(self.slack()) } else { Pages::ZERO };
        self.held += spare;
        spare
    }

    /// Queues a fault.
    pub(crate) fn wait(&mut self, place: Place, need: Need) {
        self.waits += 1;
        self.waiting.push(place, need);
        self.observe_stalls();
    }

    /// The next who can be served, charged already.
    pub(crate) fn next_turn(&mut self) -> Option<Turn> {
        let turn = self.waiting.next(self.slack())?;
        self.held += turn.reserved;
        self.observe_stalls();
        Some(turn)
    }

    /// Gives back what was charged and is not, or no longer, used.
    pub(crate) fn uncharge(&mut self, pages: Pages) {
        self.held -= pages;
    }

    /// Records what of a charge was used.
    pub(crate) fn arrived(&mut self, pages: Pages) {
        self.arrivals += pages.0;
    }

    /// The store has come to occupy `after` pages and not `before`; `freed` pages were given back to that end.
    pub(crate) fn store_changed(&mut self, before: Pages, after: Pages, freed: Pages) {
        self.store = self.store + after - before;
        self.held += after;
        self.uncharge(before + freed);
    }

    /// Records a chunk's change of state. `held` is the caller's to charge and uncharge.
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

    /// Pages of a chunk are there now: see [`Waiting::served`].
    pub(crate) fn served(&mut self, chunk: ChunkNo, pages: impl FnOnce() -> PageSet) {
        self.waiting.served(chunk, pages);
        self.observe_stalls();
    }

    pub(crate) fn add_grant(&mut self, pages: Pages) {
        self.grant = self.grant.saturating_add(pages);
    }

    /// The source has answered: see [`Waiting::make_do`].
    pub(crate) fn make_do(&mut self) {
        self.waiting.make_do();
    }

    /// Lowers the grant to what is held and waited for, and `keep` more; returns by how much.
    pub(crate) fn return_grant(&mut self, keep: Pages) -> Pages {
        let floor = self.held.saturating_add(self.waiting.need()).saturating_add(keep);
        let given = self.grant.saturating_sub(floor);
        self.grant -= given;
        given
    }

    /// Gives up to `most` pages of the grant away for good, as far as they are not used and nobody waits; returns how many.
    pub(crate) fn give_away(&mut self, most: Pages) -> Pages {
        let spare = if self.waiting.need() == Pages::ZERO { most.min(self.slack()) } else { Pages::ZERO };
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

    /// What to tell the source, if it must be told and nobody else is at it. The caller then tells it and calls
    /// [`Account::keep_telling`] until that has nothing more. So the source hears changes in order, from one thread
    /// at a time, and may call back.
    pub(crate) fn start_telling(&mut self) -> Option<Pages> {
        if self.telling {
            return None;
        }
        self.telling = true;
        self.keep_telling()
    }

    pub(crate) fn keep_telling(&mut self) -> Option<Pages> {
        let wanted = self.wanted();
        self.telling = wanted != self.told;
        self.told = wanted;
        self.telling.then_some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(chunk: usize) -> Place {
        Place { chunk: ChunkNo(chunk), slot: 0 }
    }

    #[test]
    fn what_is_charged_never_exceeds_the_grant() {
        let mut account = Account::new(Pages(600), 8);
        assert_eq!(account.charge_or_wait(place(0), Need::Chunk), Some(Pages(512)));
        assert_eq!(account.charge_or_wait(place(1), Need::Chunk), None);
        assert_eq!(account.wanted(), Pages(424), "88 pages of slack count");
        assert_eq!(account.charge_or_wait(place(2), Need::Page), Some(Pages(1)));
        assert_eq!(account.next_turn(), None);
        account.add_grant(Pages(425));
        assert_eq!(account.next_turn().map(|turn| turn.reserved), Some(Pages(512)));
        assert_eq!((account.held(), account.grant()), (Pages(1025), Pages(1025)));
    }

    #[test]
    fn a_grant_is_returned_down_to_what_is_held_and_waited_for() {
        let mut account = Account::new(Pages(1000), 8);
        account.charge_or_wait(place(0), Need::Chunk);
        assert_eq!(account.return_grant(Pages(88)), Pages(400));
        account.charge_or_wait(place(1), Need::Chunk);
        assert_eq!(account.return_grant(Pages::ZERO), Pages::ZERO, "the slack is waited for");
        assert_eq!(account.grant(), Pages(600));
    }

    #[test]
    fn the_source_is_told_of_changes_only_and_by_one_at_a_time() {
        let mut account = Account::new(Pages::ZERO, 8);
        assert_eq!(account.start_telling(), None);
        account.wait(place(0), Need::Page);
        assert_eq!(account.start_telling(), Some(Pages(1)));
        account.wait(place(1), Need::Page);
        assert_eq!(account.start_telling(), None, "somebody is at it");
        assert_eq!(account.keep_telling(), Some(Pages(2)));
        assert_eq!(account.keep_telling(), None);
        assert_eq!(account.start_telling(), None);
    }
}
