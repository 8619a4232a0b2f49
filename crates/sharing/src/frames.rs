use std::collections::{BTreeMap, BTreeSet};

use plimsoll_units::{FrameNo, PageSet, Pages, SLOTS, Slot};

use crate::MemberId;
use crate::key::Prefix;
use crate::prefetch::prefetch;

mod block;
mod makers;
#[cfg(test)]
mod tests;

use block::{Block, MANY, longest_run};
use makers::Makers;

/// The frames of a pool, how many references each has, and which one is made next.
///
/// A frame is *used* as long as it has references. Then it *lingers* until its memory is punched
/// out of the pool; then it is *free*. Only free frames are made anew: nothing is written where an
/// old mapping may be, or a hole may follow.
#[derive(Debug)]
pub(crate) struct Frames {
    limit: u32,
    /// `None`: nothing in the block is used or lingers. Frames behind the last block are free too.
    blocks: Vec<Option<Box<Block>>>,
    /// For each length of the longest run of free frames in a block, as a power of two, the blocks.
    by_room: [BTreeSet<u32>; CLASSES],
    with_lingering: BTreeSet<u32>,
    /// References above [`MANY`].
    more: BTreeMap<FrameNo, u32>,
    /// Frames that members said to differ from a page of the same digest.
    accused: BTreeMap<FrameNo, Accused>,
    makers: Makers,
    used: u64,
    lingering: u64,
    references: u64,
}

/// How many members said that a frame differs from a page of the same digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accused {
    /// This one.
    By(MemberId),
    /// Two.
    ByTwo,
}

/// No free frame, runs of 1, from 2 on, from 4 on, ..., 512.
const CLASSES: usize = 2 + SLOTS.ilog2() as usize;

/// Frames of a block.
const BLOCK: u32 = 512;
const _: () = assert!(BLOCK == SLOTS as u32);

impl Frames {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit,
            blocks: Vec::new(),
            by_room: Default::default(),
            with_lingering: BTreeSet::new(),
            more: BTreeMap::new(),
            accused: BTreeMap::new(),
            makers: Makers::default(),
            used: 0,
            lingering: 0,
            references: 0,
        }
    }

    /// Puts a free frame into use, with one reference: the one behind `after` if that is free.
    /// Otherwise the first of a run of at least `room` free frames, in a block with as little room
    /// beyond that as possible; without such a run, the first of one of the longest runs. `None`
    /// where the limit is reached.
    pub(crate) fn create(
        &mut self,
        after: Option<FrameNo>,
        room: usize,
        prefix: Prefix,
        maker: MemberId,
    ) -> Option<FrameNo> {
        let next =
            after.and_then(|after| after.0.checked_add(1)).map(FrameNo).filter(|next| self.is_free(*next));
        let frame = match next {
            Some(next) => next,
            None => self.find_room(room.clamp(1, SLOTS.into()))?,
        };
        self.adopt(frame, prefix, maker);
        Some(frame)
    }

    /// Puts a frame without references into use, with one reference.
    pub(crate) fn adopt(&mut self, frame: FrameNo, prefix: Prefix, maker: MemberId) {
        let lingered = self.is_lingering(frame);
        self.change(frame, |block, at| block.take(at, prefix));
        self.makers.set(frame, maker);
        self.lingering -= u64::from(lingered);
        self.used += 1;
        self.references += 1;
    }

    /// Takes note that a free frame has memory: it lingers. Does nothing if the frame is in use or
    /// lingers already.
    pub(crate) fn linger(&mut self, frame: FrameNo) {
        if self.is_free(frame) {
            self.change(frame, Block::linger);
            self.lingering += 1;
        }
    }

    /// Whether `frame` has references.
    pub(crate) fn is_used(&self, frame: FrameNo) -> bool {
        self.block(frame).is_some_and(|block| block.is_used(at(frame)))
    }

    fn is_lingering(&self, frame: FrameNo) -> bool {
        self.block(frame).is_some_and(|block| block.is_lingering(at(frame)))
    }

    fn is_free(&self, frame: FrameNo) -> bool {
        frame.0 < self.limit && !self.is_used(frame) && !self.is_lingering(frame)
    }

    /// The member that made `frame`; `None` once another member has confirmed it.
    pub(crate) fn maker(&self, frame: FrameNo) -> Option<MemberId> {
        let confirmed = self.block(frame)?.is_confirmed(at(frame));
        self.makers.of(frame).filter(|_| !confirmed)
    }

    /// Takes note that a page of a member that did not make `frame`, which is in use, has its
    /// content.
    pub(crate) fn confirm(&mut self, frame: FrameNo) {
        self.used_block(frame).confirm(at(frame));
    }

    /// Takes note that `by` says that `frame`, which is in use, differs from a page of the same
    /// digest. Returns the prefix of the frame's digest if `by` is the second member that says so.
    pub(crate) fn accuse(&mut self, frame: FrameNo, by: MemberId) -> Option<Prefix> {
        match self.accused.get(&frame) {
            None => {
                self.accused.insert(frame, Accused::By(by));
                None
            }
            Some(Accused::By(first)) if *first != by => {
                self.accused.insert(frame, Accused::ByTwo);
                Some(self.used_block(frame).prefix(at(frame)))
            }
            Some(_) => None,
        }
    }

    /// Whether two members said that `frame` differs from a page of the same digest.
    #[cfg(test)]
    pub(crate) fn is_accused_by_two(&self, frame: FrameNo) -> bool {
        self.accused.get(&frame) == Some(&Accused::ByTwo)
    }

    /// How many references `frame` has.
    #[cfg(test)]
    pub(crate) fn count(&self, frame: FrameNo) -> u64 {
        let count = self.block(frame).map_or(0, |block| *block.count(at(frame)));
        u64::from(count) + self.more.get(&frame).map_or(0, |more| u64::from(*more))
    }

    /// Fetches the memory that counting a reference to `frame` needs.
    pub(crate) fn prefetch(&self, frame: FrameNo) {
        self.block(frame).into_iter().for_each(|block| prefetch(block.count(at(frame))));
    }

    /// Adds a reference to a frame in use. Fewer than 2^31 pages can hold one.
    pub(crate) fn acquire(&mut self, frame: FrameNo) {
        let count = self.used_block(frame).count_mut(at(frame));
        if *count < MANY {
            *count += 1;
        } else {
            *self.more.entry(frame).or_default() += 1;
        }
        self.references += 1;
    }

    /// Removes a reference from a frame in use. If it was the last one, the frame lingers now, and
    /// the prefix of its digest is returned.
    pub(crate) fn release(&mut self, frame: FrameNo) -> Option<Prefix> {
        self.references -= 1;
        if let Some(more) = self.more.get_mut(&frame) {
            *more -= 1;
            if *more == 0 {
                self.more.remove(&frame);
            }
            return None;
        }
        let block = self.used_block(frame);
        let count = block.count_mut(at(frame));
        *count -= 1;
        if *count > 0 {
            return None;
        }
        let prefix = block.prefix(at(frame));
        self.accused.remove(&frame);
        self.change(frame, Block::linger);
        self.used -= 1;
        self.lingering += 1;
        Some(prefix)
    }

    /// A run of lingering frames to punch. Free ones may lie between them.
    pub(crate) fn lingering_run(&self) -> Option<(FrameNo, Pages)> {
        let number = *self.with_lingering.first()?;
        let (first, len) = self.blocks.get(index(number))?.as_ref()?.lingering_run()?;
        Some((FrameNo(number * BLOCK + u32::from(first)), Pages(len.into())))
    }

    /// Takes note that such a run was punched, and returns how many frames lingered in it.
    pub(crate) fn punched(&mut self, first: FrameNo, frames: Pages) -> Pages {
        let len = Slot::try_from(frames.0).expect("no more than a block");
        let punched = self.change(first, |block, at| block.punched(at, len));
        self.lingering -= punched.0;
        punched
    }

    /// Frames that have references.
    pub(crate) fn in_use(&self) -> u64 {
        self.used
    }

    /// Frames that have memory and no references.
    pub(crate) fn lingering(&self) -> u64 {
        self.lingering
    }

    pub(crate) fn references(&self) -> u64 {
        self.references
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// The memory that this takes, about.
    pub(crate) fn bytes(&self) -> usize {
        let blocks = self.blocks.iter().flatten().count() * size_of::<Block>();
        // Nodes of the maps are at least half full.
        let sets = self.by_room.iter().map(BTreeSet::len).sum::<usize>() + self.with_lingering.len();
        let more = self.more.len() * size_of::<(FrameNo, u32)>();
        let accused = self.accused.len() * size_of::<(FrameNo, Accused)>();
        let makers = self.makers.runs() * size_of::<(FrameNo, MemberId)>();
        let maps = 2 * (sets * size_of::<u32>() + more + accused + makers);
        blocks + maps + self.blocks.capacity() * size_of::<Option<Box<Block>>>()
    }

    /// The first free frame of the best run.
    fn find_room(&mut self, room: usize) -> Option<FrameNo> {
        // In this class and above, every block has a run that is long enough.
        let enough = class(room.next_power_of_two());
        let fits = self.by_room[enough..].iter().find_map(|blocks| blocks.first().copied());
        let number = match fits.or_else(|| self.push_block()) {
            Some(number) => number,
            None => self.by_room[1..enough].iter().rev().find_map(|blocks| blocks.first().copied())?,
        };
        let free = self.free(number);
        let room = room.min(longest_run(&free).into());
        let (first, _) = free.runs().find(|(_, len)| usize::from(*len) >= room)?;
        Some(FrameNo(number * BLOCK + u32::from(first)))
    }

    /// Changes a frame's block, and files the block under its new room. A vacant block is dropped.
    fn change<T>(&mut self, frame: FrameNo, change: impl FnOnce(&mut Block, Slot) -> T) -> T {
        let number = frame.0 / BLOCK;
        while self.blocks.len() <= index(number) && self.push_block().is_some() {}
        let frames = self.frames_of(number);
        let mut block = self.blocks[index(number)].take().unwrap_or_else(|| Box::new(Block::new(frames)));
        let (room, lingers) = (class(block.longest_free().into()), block.lingers());
        let result = change(&mut block, at(frame));
        self.refile(number, room, class(block.longest_free().into()));
        if block.lingers() {
            self.with_lingering.insert(number);
        } else if lingers {
            self.with_lingering.remove(&number);
        }
        if !block.is_vacant() {
            self.blocks[index(number)] = Some(block);
            return result;
        }
        let first = number * BLOCK;
        self.makers.forget(FrameNo(first)..FrameNo(first + u32::from(frames)));
        if index(number) + 1 == self.blocks.len() {
            self.pop_blocks();
        }
        result
    }

    fn push_block(&mut self) -> Option<u32> {
        let number = narrow(self.blocks.len());
        if u64::from(number) * u64::from(BLOCK) >= u64::from(self.limit) {
            return None;
        }
        self.blocks.push(None);
        self.by_room[class(self.frames_of(number).into())].insert(number);
        Some(number)
    }

    /// Forgets vacant blocks at the end.
    fn pop_blocks(&mut self) {
        while self.blocks.last().is_some_and(Option::is_none) {
            self.blocks.pop();
            let number = narrow(self.blocks.len());
            let room = class(self.frames_of(number).into());
            self.by_room[room].remove(&number);
        }
    }

    fn refile(&mut self, number: u32, before: usize, after: usize) {
        if before != after {
            self.by_room[before].remove(&number);
            self.by_room[after].insert(number);
        }
    }

    fn free(&self, number: u32) -> PageSet {
        match &self.blocks[index(number)] {
            Some(block) => block.free(),
            None => PageSet::span(0, self.frames_of(number)),
        }
    }

    /// How many frames a block has: 512, but the last one may have fewer.
    fn frames_of(&self, number: u32) -> Slot {
        Slot::try_from(self.limit - number * BLOCK).map_or(SLOTS, |left| left.min(SLOTS))
    }

    fn block(&self, frame: FrameNo) -> Option<&Block> {
        self.blocks.get(index(frame.0 / BLOCK))?.as_deref()
    }

    fn used_block(&mut self, frame: FrameNo) -> &mut Block {
        let block = self.blocks.get_mut(index(frame.0 / BLOCK)).and_then(Option::as_deref_mut);
        block.expect("a frame in use has a block")
    }
}

/// The class in `by_room` of blocks whose longest run of free frames is `longest`.
fn class(longest: usize) -> usize {
    longest.checked_ilog2().map_or(0, |power| 1 + power as usize)
}

/// The frame's place in its block.
fn at(frame: FrameNo) -> Slot {
    Slot::try_from(frame.0 % BLOCK).expect("512 at most")
}

fn index(number: u32) -> usize {
    number as usize
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("frames are numbered with 31 bits")
}
