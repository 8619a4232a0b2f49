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
/// Each member has a room: a range of places as long as the VM has pages. The room of a member that
/// left stays until nothing in it is held any more. Until then it has no tenant.
#[derive(Debug, Default)]
pub(crate) struct Members {
    /// In order of their places.
    rooms: Vec<Room>,
    bases: HashMap<MemberId, u32>,
    /// The room that was asked for last.
    recent: usize,
}

/// A range of places.
#[derive(Debug)]
pub(crate) struct Room {
    base: u32,
    tenant: Option<MemberId>,
    holdings: Zeroed<Holding>,
    pub(crate) account: Account,
    /// Frames of other makers that the last look-up named. What its pages still hold at the next
    /// look-up they were compared with.
    pub(crate) uncompared: Vec<(Place, FrameNo)>,
    /// In a room without a tenant: the pages below this one hold nothing any more.
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
    /// Gives `member` a room of `size` pages.
    pub(crate) fn join(&mut self, member: MemberId, size: Pages) -> Result<(), Error> {
        if self.bases.contains_key(&member) {
            return Err(Error::AlreadyMember(member));
        }
        let too_large = || Error::TooLarge { size };
        // A room without pages would be where the next one is.
        let length = u32::try_from(size.0.max(1)).map_err(|_| too_large())?;
        let (index, base) = self.gap(length).ok_or_else(too_large)?;
        let holdings = Zeroed::new(length as usize, Grain::Huge).map_err(Error::Memory)?;
        let room = Room {
            base,
            tenant: Some(member),
            holdings,
            account: Account::default(),
            uncompared: Vec::new(),
            cleared: 0,
        };
        self.rooms.insert(index, room);
        self.bases.insert(member, base);
        Ok(())
    }

    /// The first gap of `length` places, and the index at which its room would stand.
    fn gap(&self, length: u32) -> Option<(usize, u32)> {
        let mut from = 0;
        for (index, room) in self.rooms.iter().enumerate() {
            if room.base - from >= length {
                return Some((index, from));
            }
            from = room.end();
        }
        (u64::from(from) + u64::from(length) <= MAX_PAGES.0).then_some((self.rooms.len(), from))
    }

    /// Ends the tenancy of `member`. Its room stays for what it has. Returns whether it was a
    /// tenant.
    pub(crate) fn leave(&mut self, member: MemberId) -> bool {
        let Some(base) = self.bases.remove(&member) else { return false };
        self.room_of(Place(base)).map(|room| room.tenant = None).is_some()
    }

    /// The room of `member`.
    pub(crate) fn get(&self, member: MemberId) -> Option<&Room> {
        let base = *self.bases.get(&member)?;
        self.rooms.get(self.index_of(Place(base))?)
    }

    /// The same, to change it.
    pub(crate) fn get_mut(&mut self, member: MemberId) -> Option<&mut Room> {
        let base = *self.bases.get(&member)?;
        self.room_of(Place(base))
    }

    /// The room with this place.
    #[inline]
    pub(crate) fn room_of(&mut self, place: Place) -> Option<&mut Room> {
        // Mostly it is the same room as last time.
        if !self.rooms.get(self.recent).is_some_and(|room| room.has(place)) {
            self.recent = self.index_of(place)?;
        }
        self.rooms.get_mut(self.recent)
    }

    /// A room without a tenant.
    pub(crate) fn vacant(&mut self) -> Option<&mut Room> {
        self.rooms.iter_mut().find(|room| room.tenant.is_none())
    }

    /// Whether some room has no tenant.
    pub(crate) fn has_vacant(&self) -> bool {
        self.rooms.iter().any(|room| room.tenant.is_none())
    }

    /// Removes the rooms that have no tenant and hold nothing.
    pub(crate) fn demolish(&mut self) {
        self.rooms.retain(|room| room.tenant.is_some() || room.cleared < room.holdings.len());
    }

    /// The members.
    pub(crate) fn ids(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.rooms.iter().filter_map(|room| room.tenant)
    }

    /// Sums over all rooms, with or without a tenant.
    pub(crate) fn rooms(&self) -> &[Room] {
        &self.rooms
    }

    fn index_of(&self, place: Place) -> Option<usize> {
        let index = self.rooms.partition_point(|room| room.base <= place.0).checked_sub(1)?;
        self.rooms[index].has(place).then_some(index)
    }
}

impl Room {
    fn end(&self) -> u32 {
        // Not more than MAX_PAGES: `gap` sees to it.
        self.base + u32::try_from(self.holdings.len()).expect("made of 32 bits")
    }

    pub(crate) fn tenant(&self) -> Option<MemberId> {
        self.tenant
    }

    fn has(&self, place: Place) -> bool {
        place.0.checked_sub(self.base).is_some_and(|page| (page as usize) < self.holdings.len())
    }

    /// The place of one of its pages; `None` where the VM has no such page.
    #[inline]
    pub(crate) fn place(&self, page: PageNo) -> Option<Place> {
        ((page.0 as usize) < self.holdings.len()).then(|| Place(self.base + page.0))
    }

    /// The page at a place of the room.
    pub(crate) fn page(&self, place: Place) -> PageNo {
        PageNo(place.0 - self.base)
    }

    /// What the page at a place of the room holds.
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
