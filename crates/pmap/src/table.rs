use plimsoll_units::Pages;

use crate::aside::Spare;
use crate::page_set::{PageSet, SLOTS, Slot};
use crate::store::Handle;
use crate::swap::SwapSlot;
use crate::tally::{Kind, Tally};
use crate::touch::Touch;

/// The state of one page of a small chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageState {
    /// Never touched, given back, or seen to hold zeros: zeros, nothing resident.
    Absent,
    /// As absent, and in the guest's balloon.
    Ballooned,
    /// Resident, and only this VM's.
    Private,
    /// Resident and write-protected, and the swap holds the same: can be dropped without a write.
    Clean(SwapSlot),
    /// In the store.
    Compressed(Handle),
    /// On its way into the swap: its content is in a write buffer.
    Leaving(SwapSlot),
    /// In the swap and nowhere else.
    Swapped(SwapSlot),
    /// Being read from the swap; charged already.
    Arriving {
        /// Where it is read from.
        from: SwapSlot,
        /// By whom it is waited for: where that is a write, its copy in the swap will not be kept.
        touch: Touch,
    },
    /// Put aside, to see whether it is touched.
    Aside(Spare),
}

const _: () = assert!(size_of::<PageState>() == 8, "half of what a page's bookkeeping may cost");

/// What a state costs, and where it shows in the VM's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Absent,
    Ballooned,
    Charged,
    Compressed,
    Swapped,
}

impl PageState {
    fn class(self) -> Class {
        match self {
            Self::Absent => Class::Absent,
            Self::Ballooned => Class::Ballooned,
            Self::Private | Self::Clean(_) | Self::Arriving { .. } | Self::Aside(_) => Class::Charged,
            Self::Compressed(_) => Class::Compressed,
            Self::Leaving(_) | Self::Swapped(_) => Class::Swapped,
        }
    }

    /// Whether it costs the grant a page.
    pub(crate) fn is_charged(self) -> bool {
        self.class() == Class::Charged
    }

    /// Whether the page is there: its content is guest memory itself.
    pub(crate) fn is_resident(self) -> bool {
        matches!(self, Self::Private | Self::Clean(_))
    }

    /// Whether its content is elsewhere and would be brought back by a touch.
    pub(crate) fn is_elsewhere(self) -> bool {
        matches!(self.class(), Class::Compressed | Class::Swapped)
    }
}

/// The states of a small chunk's pages. Exists only while the chunk is small.
#[derive(Debug)]
pub(crate) struct Table {
    states: [PageState; SLOTS as usize],
    counts: [u16; 5],
    /// Pages that faults have brought in since eviction last looked at the chunk: they get a second chance.
    pub(crate) recent: PageSet,
}

impl Table {
    pub(crate) fn all(state: PageState) -> Box<Self> {
        let mut counts = [0; 5];
        counts[state.class() as usize] = SLOTS;
        Box::new(Self { states: [state; SLOTS as usize], counts, recent: PageSet::EMPTY })
    }

    /// A table in which the pages of `private` are private and all others absent.
    pub(crate) fn of_private(private: &PageSet) -> Box<Self> {
        let mut table = Self::all(PageState::Absent);
        table.set_all(private, PageState::Private);
        table
    }

    pub(crate) fn get(&self, slot: Slot) -> PageState {
        self.states[usize::from(slot)]
    }

    pub(crate) fn states(&self) -> impl Iterator<Item = PageState> + '_ {
        self.states.iter().copied()
    }

    pub(crate) fn set(&mut self, slot: Slot, state: PageState) {
        self.counts[self.get(slot).class() as usize] -= 1;
        self.counts[state.class() as usize] += 1;
        self.states[usize::from(slot)] = state;
    }

    pub(crate) fn set_all(&mut self, slots: &PageSet, state: PageState) {
        slots.iter().for_each(|slot| self.set(slot, state));
    }

    /// The pages whose state is `like` that.
    pub(crate) fn pages(&self, like: impl Fn(PageState) -> bool) -> PageSet {
        (0..SLOTS).filter(|&slot| like(self.get(slot))).collect()
    }

    /// Whether all pages are absent (false) or all ballooned (true); `None` where neither is so.
    pub(crate) fn is_empty(&self) -> Option<bool> {
        match (self.count(Class::Absent), self.count(Class::Ballooned)) {
            (Pages::CHUNK, _) => Some(false),
            (_, Pages::CHUNK) => Some(true),
            _ => None,
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        Tally {
            backed: self.count(Class::Charged),
            ballooned: self.count(Class::Ballooned),
            compressed: self.count(Class::Compressed),
            swapped: self.count(Class::Swapped),
            kind: Kind::Small,
        }
    }

    fn count(&self, class: Class) -> Pages {
        Pages(self.counts[class as usize].into())
    }
}
