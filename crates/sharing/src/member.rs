use std::collections::HashMap;

use plimsoll_units::{FrameNo, PageNo, Pages};

use crate::error::Error;
use crate::holding::Holding;
use crate::mmap::{Grain, Zeroed};
use crate::prefetch::prefetch;
use crate::trust::Trust;
use crate::{MAX_PAGES, MemberId};

/// A page of any member, as a number: its member's base plus its own number. Below [`MAX_PAGES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(pub(crate) u32);

/// What each member has, and which place is whose page.
///
/// Each member has a range of places, as long as the VM has pages. The range of a member that left
/// stays until nothing in it is held any more. Until then it has no member.
#[derive(Debug, Default)]
pub(crate) struct Members {
    /// In order of their places.
    ranges: Vec<PlaceRange>,
    bases: HashMap<MemberId, u32>,
    /// The range that was asked for last.
    recent: usize,
}

/// A range of places, and what its pages hold.
#[derive(Debug)]
pub(crate) struct PlaceRange {
    base: u32,
    member: Option<MemberId>,
    holdings: Zeroed<Holding>,
    pub(crate) account: Account,
    /// Frames of other makers that the last look-up named. What its pages still hold at the next
    /// look-up they were compared with.
    pub(crate) uncompared: Vec<(Place, FrameNo)>,
    /// In a range without a member: the pages below this one hold nothing any more.
    cleared: usize,
}

/// What a member has and has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Account {
    pub(crate) references: u64,
    pub(crate) hints: u64,
    pub(crate) false_matches: u64,
    pub(crate) false_offers: u64,
    pub(crate) false_returns: u64,
    pub(crate) trust: Trust,
}

impl Members {
    /// Gives `member` a range of `size` pages.
    pub(crate) fn join(&mut self, member: MemberId, size: Pages) -> Result<(), Error> {
        if self.bases.contains_key(&member) {
            return Err(Error::AlreadyMember(member));
        }
        let too_large = || Error::TooLarge { size };
        // A range without pages would be where the next one is.
        let length = u32::try_from(size.0.max(1)).map_err(|_| too_large())?;
        let (index, base) = self.gap(length).ok_or_else(too_large)?;
        let holdings = Zeroed::new(length as usize, Grain::Huge).map_err(Error::Memory)?;
        let range = PlaceRange {
            base,
            member: Some(member),
            holdings,
            account: Account::default(),
            uncompared: Vec::new(),
            cleared: 0,
        };
        self.ranges.insert(index, range);
        self.bases.insert(member, base);
        Ok(())
    }

    /// The first gap of `length` places, and the index at which its range would stand.
    fn gap(&self, length: u32) -> Option<(usize, u32)> {
        let mut from = 0;
        for (index, range) in self.ranges.iter().enumerate() {
            if range.base - from >= length {
                return Some((index, from));
            }
            from = range.end();
        }
        (u64::from(from) + u64::from(length) <= MAX_PAGES.0).then_some((self.ranges.len(), from))
    }

    /// Ends the membership of `member`. Its range stays for what it has. Returns whether it was a
    /// member.
    pub(crate) fn leave(&mut self, member: MemberId) -> bool {
        let Some(base) = self.bases.remove(&member) else { return false };
        self.range_of(Place(base)).map(|range| range.member = None).is_some()
    }

    /// The range of `member`.
    pub(crate) fn get(&self, member: MemberId) -> Option<&PlaceRange> {
        let base = *self.bases.get(&member)?;
        self.ranges.get(self.index_of(Place(base))?)
    }

    /// The same, to change it.
    pub(crate) fn get_mut(&mut self, member: MemberId) -> Option<&mut PlaceRange> {
        let base = *self.bases.get(&member)?;
        self.range_of(Place(base))
    }

    /// The range with this place.
    #[inline]
    pub(crate) fn range_of(&mut self, place: Place) -> Option<&mut PlaceRange> {
        // Mostly it is the same range as last time.
        if !self.ranges.get(self.recent).is_some_and(|range| range.has(place)) {
            self.recent = self.index_of(place)?;
        }
        self.ranges.get_mut(self.recent)
    }

    /// A range without a member.
    pub(crate) fn vacant(&mut self) -> Option<&mut PlaceRange> {
        self.ranges.iter_mut().find(|range| range.member.is_none())
    }

    /// Whether some range has no member.
    pub(crate) fn has_vacant(&self) -> bool {
        self.ranges.iter().any(|range| range.member.is_none())
    }

    /// Removes the ranges that have no member and hold nothing.
    pub(crate) fn remove_cleared(&mut self) {
        self.ranges.retain(|range| range.member.is_some() || range.cleared < range.holdings.len());
    }

    /// The members.
    pub(crate) fn ids(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.ranges.iter().filter_map(|range| range.member)
    }

    /// All ranges, with or without a member.
    pub(crate) fn ranges(&self) -> &[PlaceRange] {
        &self.ranges
    }

    fn index_of(&self, place: Place) -> Option<usize> {
        let index = self.ranges.partition_point(|range| range.base <= place.0).checked_sub(1)?;
        self.ranges[index].has(place).then_some(index)
    }
}

impl PlaceRange {
    fn end(&self) -> u32 {
        // Not more than MAX_PAGES: `gap` sees to it.
        self.base + u32::try_from(self.holdings.len()).expect("made of 32 bits")
    }

    pub(crate) fn member(&self) -> Option<MemberId> {
        self.member
    }

    fn has(&self, place: Place) -> bool {
        place.0.checked_sub(self.base).is_some_and(|page| (page as usize) < self.holdings.len())
    }

    /// The place of one of its pages; `None` where the VM has no such page.
    #[inline]
    pub(crate) fn place(&self, page: PageNo) -> Option<Place> {
        ((page.0 as usize) < self.holdings.len()).then(|| Place(self.base + page.0))
    }

    /// The page at a place of the range.
    pub(crate) fn page(&self, place: Place) -> PageNo {
        PageNo(place.0 - self.base)
    }

    /// What the page at a place of the range holds.
    #[inline]
    pub(crate) fn holding(&mut self, place: Place) -> &mut Holding {
        &mut self.holdings[(place.0 - self.base) as usize]
    }

    /// Fetches the memory that says what `page` holds.
    #[inline]
    pub(crate) fn prefetch(&self, page: PageNo) {
        self.holdings.get(page.0 as usize).into_iter().for_each(prefetch);
    }

    /// The next pages, at most `most`, that may still hold something, and the place of the first.
    /// They count as cleared from now on.
    pub(crate) fn clear(&mut self, most: usize) -> (Place, &mut [Holding]) {
        let from = self.cleared;
        self.cleared = self.holdings.len().min(from.saturating_add(most));
        let place = Place(self.base + u32::try_from(from).expect("made of 32 bits"));
        (place, &mut self.holdings[from..self.cleared])
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let uncompared = self.uncompared.capacity() * size_of::<(Place, FrameNo)>();
        size_of::<Self>() + size_of_val(&self.holdings[..]) + uncompared
    }
}
