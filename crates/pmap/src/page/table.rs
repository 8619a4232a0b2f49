use plimsoll_units::{FrameNo, Pages};

use super::islands::Islands;
use super::state::{CLASSES, Class, PageState};
use crate::account::{Kind, Tally};
use crate::address::{PageSet, SLOTS, Slot};

/// The states of a small chunk's pages. Exists only while the chunk is small.
#[derive(Debug)]
pub(crate) struct Table {
    states: [PageState; SLOTS as usize],
    counts: [u16; CLASSES],
    awaited: u16,
    /// Pages that faults have brought in since eviction last looked at the chunk: they get a second chance.
    pub(crate) recent: PageSet,
    /// Pages that were written to, or touched, although they had been shared, since the scanner last looked at the chunk.
    pub(crate) broken: PageSet,
    /// Private pages that still lie in the mapping of a frame: the kernel has copied them when they were written. Discarded, they
    /// would be the frame again.
    pub(crate) overlaid: PageSet,
    /// Pages that are mappings of their own, which the kernel will not join into a huge page: the
    /// shared and the overlaid ones, and those that were taken out of the mapping of a frame.
    pub(crate) islands: Islands,
    /// Frames that pages had and that are to be given back, once no device may be reading them.
    pub(crate) departed: Vec<(Slot, FrameNo)>,
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
            islands: Islands::default(),
            departed: Vec::new(),
        })
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
        self.awaited = self.awaited + u16::from(state.is_awaited()) - u16::from(self.get(slot).is_awaited());
        self.states[usize::from(slot)] = state;
    }

    /// Mappings that the chunk takes beyond one: see [`Islands::mappings`].
    pub(crate) fn mappings(&self) -> u64 {
        self.islands.mappings()
    }

    pub(crate) fn set_all(&mut self, slots: &PageSet, state: PageState) {
        slots.iter().for_each(|slot| self.set(slot, state));
    }

    /// The pages whose state is `like` that.
    pub(crate) fn pages(&self, like: impl Fn(PageState) -> bool) -> PageSet {
        (0..SLOTS).filter(|&slot| like(self.get(slot))).collect()
    }

    /// Those of a set whose state is `like` that.
    pub(crate) fn among(&self, set: &PageSet, like: impl Fn(PageState) -> bool) -> PageSet {
        set.iter().filter(|&slot| like(self.get(slot))).collect()
    }

    /// What to write-protect so that nobody writes to `pages`, which are resident, for a moment: those of them that are not protected for a longer
    /// time. Where that were many calls and none is, it is the whole chunk, which is one; who writes to another page waits for the same moment.
    pub(crate) fn unguarded(&self, pages: &PageSet) -> PageSet {
        let guarded = self.pages(|state| matches!(state, PageState::Clean(_) | PageState::Shared(_)));
        let open = pages.minus(&guarded);
        if open.is_ragged() && guarded.is_empty() { PageSet::FULL } else { open }
    }

    /// How many pages were dropped because they held zeros.
    pub(crate) fn zeros(&self) -> Slot {
        self.counts[Class::Zero as usize]
    }

    /// Whether all pages are absent or zero (false) or all ballooned (true); `None` where neither is so.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_pages_are_protected_with_the_whole_chunk_unless_some_stay_protected() {
        let mut table = Table::all(PageState::Private);
        let few: PageSet = [3, 5].into_iter().collect();
        let many: PageSet = (0..SLOTS).step_by(2).collect();
        assert_eq!((table.unguarded(&few), table.unguarded(&many)), (few, PageSet::FULL));
        table.set(3, PageState::Shared(FrameNo(9)));
        assert_eq!(table.unguarded(&few), PageSet::one(5));
        assert_eq!(table.unguarded(&many), many, "or the frame could be written afterwards");
    }
}
