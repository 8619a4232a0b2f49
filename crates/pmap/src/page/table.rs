#[cfg(test)]
mod tests;

use plimsoll_units::{FrameNo, Pages};

use super::extra_mappings::ExtraMappings;
use super::state::{CLASSES, Class, PageState};
use super::step::{Step, note};
use crate::account::{Kind, Tally};
use crate::address::{MAX_RUN, PageSet, SLOTS, Slot, is_ragged};

/// The states of a small chunk's pages. Exists only while the chunk is small.
#[derive(Debug)]
pub(crate) struct Table {
    states: [PageState; SLOTS as usize],
    counts: [u16; CLASSES],
    awaited: u16,
    /// Pages that faults have brought in since eviction last looked at the chunk: they get a second
    /// chance.
    pub(crate) recent: PageSet,
    /// Pages whose sharing a touch has ended since the scanner last looked at the chunk.
    pub(crate) broken: PageSet,
    /// Private pages that still lie in the mapping of a frame: the kernel copied them when they
    /// were written. If such a page is discarded there, it is the frame again.
    pub(crate) overlaid: PageSet,
    /// Mappings beyond one that the chunk consists of: those of shared and overlaid pages, and of
    /// pages that were moved out of a frame's mapping. The kernel makes no huge page across them.
    pub(crate) extra_mappings: ExtraMappings,
    /// Frames that pages no longer map, to be given back once no device can be reading them.
    pub(crate) unreturned: Vec<(Slot, FrameNo)>,
}

impl Table {
    pub(crate) fn all(state: PageState) -> Box<Self> {
        debug_assert!(state.frame().is_none(), "no two pages are shared in one step");
        debug_assert!(!state.is_awaited(), "pages are read one by one");
        let mut counts = [0; CLASSES];
        counts[state.class() as usize] = SLOTS;
        Box::new(Self {
            states: [state; SLOTS as usize],
            counts,
            awaited: 0,
            recent: PageSet::EMPTY,
            broken: PageSet::EMPTY,
            overlaid: PageSet::EMPTY,
            extra_mappings: ExtraMappings::default(),
            unreturned: Vec::new(),
        })
    }

    /// A table in which the pages of `private` are private and all others absent.
    pub(crate) fn of_private(private: &PageSet) -> Box<Self> {
        let mut table = Self::all(PageState::Absent);
        private.iter().for_each(|slot| table.put(slot, PageState::Private));
        table
    }

    pub(crate) fn get(&self, slot: Slot) -> PageState {
        self.states[usize::from(slot)]
    }

    pub(crate) fn states(&self) -> impl Iterator<Item = PageState> + '_ {
        self.states.iter().copied()
    }

    /// Changes a page's state, in a step for which the table of transitions has a row.
    pub(crate) fn set(&mut self, slot: Slot, state: PageState, step: Step) {
        note(step, self.get(slot).name(), state.name());
        self.put(slot, state);
    }

    fn put(&mut self, slot: Slot, state: PageState) {
        self.counts[self.get(slot).class() as usize] -= 1;
        self.counts[state.class() as usize] += 1;
        self.awaited = self.awaited + u16::from(state.is_awaited()) - u16::from(self.get(slot).is_awaited());
        self.states[usize::from(slot)] = state;
    }

    /// Mappings that the chunk takes beyond one: see [`ExtraMappings::mappings`].
    pub(crate) fn mappings(&self) -> u64 {
        self.extra_mappings.mappings()
    }

    /// Changes the states of several pages to the same.
    pub(crate) fn set_all(&mut self, slots: &PageSet, state: PageState, step: Step) {
        slots.iter().for_each(|slot| self.set(slot, state, step));
    }

    /// The pages whose state `like` accepts.
    pub(crate) fn pages(&self, like: impl Fn(PageState) -> bool) -> PageSet {
        (0..SLOTS).filter(|&slot| like(self.get(slot))).collect()
    }

    /// The pages of `set` whose state `like` accepts.
    pub(crate) fn among(&self, set: &PageSet, like: impl Fn(PageState) -> bool) -> PageSet {
        set.iter().filter(|&slot| like(self.get(slot))).collect()
    }

    /// The pages to write-protect so that `pages` (all resident) stay unchanged: those that are not
    /// protected yet. If that takes many calls and nothing is protected so far, the whole chunk, in
    /// one call; writers to its other pages wait briefly.
    pub(crate) fn unguarded(&self, pages: &PageSet) -> PageSet {
        let guarded = self.pages(|state| matches!(state, PageState::Clean(_) | PageState::Shared(_)));
        let open = pages.minus(&guarded);
        if is_ragged(&open) && guarded.is_empty() { PageSet::FULL } else { open }
    }

    /// How many absent pages right behind the absent one in `slot` are provided with it: as many as
    /// are present right before it, if faults have brought those in lately. So a guest that goes
    /// from page to page has a fault for twice as many pages each time, up to [`MAX_RUN`], and one
    /// that touches single pages pays for nothing else. None in a chunk of several mappings, which
    /// the kernel does not fill in one call, and none before a page that is not absent.
    pub(crate) fn following(&self, slot: Slot) -> Slot {
        if self.get(slot) != PageState::Absent || self.mappings() > 0 {
            return 0;
        }
        let came = |at: &Slot| self.get(*at).is_resident() && self.recent.contains(*at);
        let before = (slot.saturating_sub(MAX_RUN - 1)..slot).rev().take_while(came).count();
        let absent = |at: &Slot| self.get(*at) == PageState::Absent;
        let behind = (slot + 1..SLOTS).take(before).take_while(absent).count();
        Slot::try_from(behind).unwrap_or(0)
    }

    /// The number of pages that were dropped because they held zeros.
    pub(crate) fn zeros(&self) -> Slot {
        self.counts[Class::Zero as usize]
    }

    /// Whether all pages are absent or zero (false) or all ballooned (true); `None` where neither
    /// is so.
    pub(crate) fn is_empty(&self) -> Option<bool> {
        match (self.count(Class::Absent) + self.count(Class::Zero), self.count(Class::Ballooned)) {
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
            shared: self.count(Class::Shared),
            zero: self.count(Class::Zero),
            awaited: Pages(self.awaited.into()),
            mappings: self.mappings(),
            kind: Kind::Small,
        }
    }

    fn count(&self, class: Class) -> Pages {
        Pages(self.counts[class as usize].into())
    }
}
