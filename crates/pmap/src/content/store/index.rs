use std::collections::BTreeSet;
use std::io;

use super::record::word;
use super::reserve::Reserve;
use crate::address::PAGE;

/// Bytes of an entry.
const ENTRY: usize = 4;
/// Entries in a block, which is one page.
const BLOCK: u32 = 1024;
const _: () = assert!(BLOCK as usize * ENTRY == PAGE);
/// Marks a free entry; the rest of it is the next free slot in its block.
const FREE: u32 = 1 << 31;
/// Instead of a slot: no more free ones.
const END: u16 = u16::MAX;

/// Where each record is: a word for each handle.
///
/// Records move, handles do not, so a block of entries stays until all its handles are free. New
/// handles come from the lowest block with room, which keeps the blocks dense while the store turns
/// over.
#[derive(Debug)]
pub(super) struct Index {
    memory: Reserve,
    blocks: Vec<Block>,
    /// Blocks with some entries in use and some free.
    partial: BTreeSet<u32>,
    /// Blocks with no entry in use: without memory.
    unused: Vec<u32>,
    live: usize,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    used: u16,
    /// Entries from here on were never in use since the block has had memory.
    fresh: u16,
    /// The first of the entries that were freed.
    free: u16,
}

impl Block {
    const UNUSED: Self = Self { used: 0, fresh: 0, free: END };
}

impl Index {
    /// Makes an index for at most `most` handles at a time.
    pub(super) fn new(most: usize) -> io::Result<Self> {
        Ok(Self {
            memory: Reserve::new(most.saturating_mul(ENTRY))?,
            blocks: Vec::new(),
            partial: BTreeSet::new(),
            unused: Vec::new(),
            live: 0,
        })
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> &[u8] {
        self.memory.bytes()
    }

    /// Pages of memory in use.
    pub(super) fn pages(&self) -> usize {
        self.blocks.len() - self.unused.len()
    }

    /// Bytes of the entries in use.
    pub(super) fn live_bytes(&self) -> usize {
        self.live * ENTRY
    }

    /// Pages that `count` more handles need.
    pub(super) fn need(&self, count: usize) -> usize {
        let free = self.pages() * BLOCK as usize - self.live;
        count.saturating_sub(free).div_ceil(BLOCK as usize)
    }

    /// Makes a handle for the record at `place`, which has 31 bits.
    pub(super) fn add(&mut self, place: u32) -> u32 {
        let no = self.block_with_room();
        let block = &mut self.blocks[no as usize];
        let slot = if block.free == END { block.fresh } else { block.free };
        let handle = no * BLOCK + u32::from(slot);
        if block.free == END {
            block.fresh += 1;
        } else {
            let next = word(self.memory.bytes(), offset(handle)) & !FREE;
            block.free = u16::try_from(next).unwrap_or(END);
        }
        block.used += 1;
        if u32::from(block.used) == BLOCK {
            self.partial.remove(&no);
        } else {
            self.partial.insert(no);
        }
        self.live += 1;
        self.write(handle, place);
        handle
    }

    /// The place of a record, or `None` where `handle` is free.
    pub(super) fn get(&self, handle: u32) -> Option<u32> {
        let block = self.blocks.get((handle / BLOCK) as usize)?;
        if block.fresh <= slot_of(handle) {
            return None;
        }
        let value = word(self.memory.bytes(), offset(handle));
        (value & FREE == 0).then_some(value)
    }

    /// Notes that the record of `handle`, which must be in use, is at `place` now.
    pub(super) fn set(&mut self, handle: u32, place: u32) {
        debug_assert!(self.get(handle).is_some() && place & FREE == 0);
        self.write(handle, place);
    }

    /// Frees `handle`, which must be in use.
    pub(super) fn free(&mut self, handle: u32) {
        debug_assert!(self.get(handle).is_some());
        let no = handle / BLOCK;
        let block = &mut self.blocks[no as usize];
        let next = std::mem::replace(&mut block.free, slot_of(handle));
        block.used -= 1;
        self.live -= 1;
        if block.used == 0 {
            *block = Block::UNUSED;
            self.partial.remove(&no);
            self.unused.push(no);
            let start = no as usize * PAGE;
            self.memory.discard(start..start + PAGE);
        } else {
            self.partial.insert(no);
            self.write(handle, FREE | u32::from(next));
        }
    }

    /// Frees all handles.
    pub(super) fn clear(&mut self) {
        self.memory.discard(0..self.blocks.len() * PAGE);
        self.blocks.clear();
        self.partial.clear();
        self.unused.clear();
        self.live = 0;
    }

    /// The lowest block with room; where none has, one that has no memory yet.
    fn block_with_room(&mut self) -> u32 {
        self.partial.first().copied().or_else(|| self.unused.pop()).unwrap_or_else(|| {
            self.blocks.push(Block::UNUSED);
            u32::try_from(self.blocks.len() - 1).expect("handles, which are more, have 32 bits")
        })
    }

    fn write(&mut self, handle: u32, value: u32) {
        let at = offset(handle);
        self.memory.bytes_mut()[at..at + ENTRY].copy_from_slice(&value.to_le_bytes());
    }
}

fn offset(handle: u32) -> usize {
    handle as usize * ENTRY
}

fn slot_of(handle: u32) -> u16 {
    u16::try_from(handle % BLOCK).expect("less than 1024")
}
