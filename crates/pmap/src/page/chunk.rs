#[cfg(test)]
mod tests;

use plimsoll_units::Pages;

use super::activity::Activity;
use super::state::PageState;
use super::step::{State, Step, note};
use super::table::Table;
use crate::account::{Kind, Tally};
use crate::address::{ChunkNo, PageSet, SLOTS, Slot, Spare};
use crate::lock::{CHUNK, Guard, Guards, Lock};

/// One chunk of guest memory: its state and the device I/O in flight on it. The states and the
/// transitions between them are described in the crate's documentation.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) backing: Backing,
    /// What the last sample of it showed.
    pub(crate) activity: Activity,
    /// Runs of pages with device I/O in flight, as (first, length), one for each pin. A list and
    /// not a count for each page: there are as many as requests in flight, mostly none.
    io: Vec<(Slot, Slot)>,
}

/// What provides the chunk's pages.
#[derive(Debug)]
pub(crate) enum Backing {
    /// Nothing: no page is present, and all are armed.
    Empty {
        /// All 512 pages are in the guest's balloon. A chunk of which only some are is small.
        ballooned: bool,
        /// The number of pages that were dropped because they held zeros. The chunk does not keep
        /// which.
        zero: Slot,
    },
    /// The kernel, unasked. Costs 512 pages, whatever is resident.
    Large,
    /// Nothing: the chunk is large, but all of it is set aside as a sample. All pages are armed.
    Aside(Spare),
    /// The pmap, page by page; all are armed.
    Small(Box<Table>),
}

impl Default for Backing {
    fn default() -> Self {
        Self::Empty { ballooned: false, zero: 0 }
    }
}

impl Backing {
    fn name(&self) -> State {
        match self {
            Self::Empty { .. } => State::EmptyChunk,
            Self::Large => State::LargeChunk,
            Self::Aside(_) => State::AsideChunk,
            Self::Small(_) => State::SmallChunk,
        }
    }
}

impl Chunk {
    /// Changes the chunk's state, in a step for which the table of transitions has a row; returns
    /// what it was.
    pub(crate) fn set_backing(&mut self, backing: Backing, step: Step) -> Backing {
        note(step, self.backing.name(), backing.name());
        std::mem::replace(&mut self.backing, backing)
    }

    pub(crate) fn kind(&self) -> Kind {
        match self.backing {
            Backing::Empty { .. } => Kind::Empty,
            Backing::Large | Backing::Aside(_) => Kind::Large,
            Backing::Small(_) => Kind::Small,
        }
    }

    /// The pages that no fault waits for: the resident ones, those on their way, and all that the
    /// kernel serves.
    pub(crate) fn served(&self) -> PageSet {
        match &self.backing {
            Backing::Empty { .. } => PageSet::EMPTY,
            // One touch brings all of what is aside back.
            Backing::Large | Backing::Aside(_) => PageSet::FULL,
            Backing::Small(table) => table.pages(PageState::is_charged),
        }
    }

    /// What the chunk counts for in the account.
    pub(crate) fn tally(&self) -> Tally {
        let empty = Tally { kind: self.kind(), ..Tally::default() };
        match &self.backing {
            Backing::Empty { ballooned: false, zero } => Tally { zero: Pages((*zero).into()), ..empty },
            Backing::Empty { ballooned: true, .. } => Tally { ballooned: Pages::CHUNK, ..empty },
            Backing::Large | Backing::Aside(_) => Tally { backed: Pages::CHUNK, ..empty },
            Backing::Small(table) => table.tally(),
        }
    }

    /// The table of a chunk that is small or, being empty, becomes small; `None` where it is large.
    pub(crate) fn small_table(&mut self) -> Option<&mut Table> {
        if let Backing::Empty { ballooned, .. } = self.backing {
            let state = if ballooned { PageState::Ballooned } else { PageState::Absent };
            self.set_backing(Backing::Small(Table::all(state)), Step::Split);
        }
        match &mut self.backing {
            Backing::Small(table) => Some(table),
            Backing::Empty { .. } | Backing::Large | Backing::Aside(_) => None,
        }
    }

    /// Makes a small chunk empty if all of its pages are absent or zero, or all are ballooned. A
    /// chunk that consists of several mappings stays small, because that must be remembered.
    pub(crate) fn empty_if_uniform(&mut self) {
        let Backing::Small(table) = &self.backing else { return };
        if !table.extra_mappings.is_empty() {
            return;
        }
        if let Some(ballooned) = table.is_empty() {
            let empty = Backing::Empty { ballooned, zero: table.zeros() };
            self.set_backing(empty, Step::Collect);
        }
    }

    /// Calls `each` for every place where pages of the chunk are set aside, with their number.
    pub(crate) fn aside(&self, mut each: impl FnMut(Spare, Slot)) {
        match &self.backing {
            Backing::Aside(spare) => each(*spare, SLOTS),
            Backing::Small(table) => table.states().for_each(|state| {
                if let PageState::Aside(spare) = state {
                    each(spare, 1);
                }
            }),
            Backing::Empty { .. } | Backing::Large => {}
        }
    }

    /// How many pages are provided with the absent one in `slot` when it is written to: see
    /// [`Table::following`].
    pub(crate) fn following(&self, slot: Slot) -> Slot {
        match &self.backing {
            Backing::Small(table) => table.following(slot),
            Backing::Empty { .. } | Backing::Large | Backing::Aside(_) => 0,
        }
    }

    /// The pages with device I/O in flight.
    pub(crate) fn busy(&self) -> PageSet {
        self.io.iter().fold(PageSet::EMPTY, |set, &(first, len)| set.union(&PageSet::span(first, len)))
    }

    pub(crate) fn start_io(&mut self, first: Slot, len: Slot) {
        self.io.push((first, len));
    }

    /// Ends the I/O that [`Chunk::start_io`] began with the same run.
    pub(crate) fn end_io(&mut self, first: Slot, len: Slot) {
        if let Some(at) = self.io.iter().position(|&run| run == (first, len)) {
            self.io.swap_remove(at);
        }
    }
}

/// All chunks of a VM, each behind its lock.
///
/// A chunk's lock is held for the whole of a transition, system calls included. A thread holds one
/// at a time, or takes all in order.
pub(crate) struct Chunks(Box<[Lock<Chunk, CHUNK>]>);

/// A locked chunk.
pub(crate) type ChunkGuard<'a> = Guard<'a, Chunk, CHUNK>;

impl Chunks {
    pub(crate) fn new(count: usize) -> Self {
        Self((0..count).map(|_| Lock::default()).collect())
    }

    /// Locks a chunk, which must be one of the layout's.
    pub(crate) fn lock(&self, no: ChunkNo) -> ChunkGuard<'_> {
        self.0[no.0].lock()
    }

    /// Locks all chunks, in order. Nothing is in transition while the guards live.
    pub(crate) fn lock_all(&self) -> Guards<'_, Chunk> {
        Lock::lock_all(&self.0)
    }
}
