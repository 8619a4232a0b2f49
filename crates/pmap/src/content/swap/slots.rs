#[cfg(test)]
mod tests;

use std::collections::HashMap;

/// A page's place in the swap file: bytes `number * 4096` to `number * 4096 + 4095`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SwapSlot(pub(super) u32);

impl SwapSlot {
    /// The slot `pages` behind this one. It may be beyond the file's end.
    pub(crate) fn plus(self, pages: usize) -> Self {
        // Saturated, it is beyond the end of any file that the swap takes.
        Self(u32::try_from(pages).map_or(u32::MAX, |pages| self.0.saturating_add(pages)))
    }
}

/// Which slots are in use.
///
/// A slot is in use from [`reserve`](Self::reserve) to [`free`](Self::free), and beyond that until
/// every I/O on it that was told of has ended: otherwise a late write would destroy, or a late read
/// return, another page's content.
#[derive(Debug)]
pub(super) struct Slots {
    /// A bit a slot, one: in use. Bits behind the last slot are ones.
    words: Vec<u64>,
    len: u32,
    free: u32,
    /// Where the search begins: behind the slots reserved last, so that pages that leave one after
    /// the other lie in a row.
    cursor: u32,
    /// Slots with I/O in flight.
    flights: HashMap<SwapSlot, Flights>,
}

#[derive(Debug, Default)]
struct Flights {
    count: u32,
    /// The slot was freed.
    freed: bool,
}

/// Slots that are searched for a long run before shorter ones are taken (1 GiB of swap). Without a
/// bound the search would take a millisecond in a large fragmented file, under a lock; with a small
/// one, writes would be scattered while there are long runs elsewhere.
const WINDOW: u32 = 1 << 18;
const WORD: u32 = u64::BITS;

impl Slots {
    pub(super) fn new(len: u32) -> Self {
        let mut words = vec![0; len.div_ceil(WORD) as usize];
        if let Some(last) = words.last_mut()
            && !len.is_multiple_of(WORD)
        {
            *last = !0 << (len % WORD);
        }
        Self { words, len, free: len, cursor: 0, flights: HashMap::new() }
    }

    /// Slots that can be reserved.
    pub(super) fn free_slots(&self) -> u32 {
        self.free
    }

    /// No I/O is in flight on any slot.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// Slots that I/O is in flight on.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Takes `count` slots, or as many as are free: in one run if there is one nearby, in long runs
    /// rather than short.
    pub(super) fn reserve(&mut self, count: u16) -> Vec<SwapSlot> {
        let wanted = u32::from(count).min(self.free);
        let mut taken = Vec::with_capacity(wanted as usize);
        let mut left = wanted;
        let mut shortest = wanted;
        while left > 0 {
            left = self.sweep(shortest, left, &mut taken);
            shortest = (shortest / 2).max(1);
        }
        taken
    }

    /// Takes up to `left` slots from free runs that have at least `shortest`, and returns how many
    /// are still wanted.
    fn sweep(&mut self, shortest: u32, mut left: u32, taken: &mut Vec<SwapSlot>) -> u32 {
        let start = self.cursor;
        let window = if shortest > 1 { WINDOW } else { self.len };
        let near = start.saturating_add(window).min(self.len);
        // What is left of the window lies before the cursor.
        let wrapped = window.saturating_sub(near - start).min(start);
        for (mut at, end) in [(start, near), (0, wrapped)] {
            while left > 0 {
                let first = self.next(at, true);
                if first >= end {
                    break;
                }
                at = self.next(first, false).min(first + left);
                if at - first >= shortest.min(left) {
                    self.take(first, at);
                    taken.extend((first..at).map(SwapSlot));
                    left -= at - first;
                }
            }
        }
        left
    }

    /// The first slot from `from` on that is free, or that is not; the number of slots if there is
    /// none.
    fn next(&self, from: u32, free: bool) -> u32 {
        let mut mask = !0 << (from % WORD);
        for (index, word) in (from / WORD..).zip(self.words.iter().skip((from / WORD) as usize)) {
            let bits = mask & if free { !word } else { *word };
            if bits != 0 {
                return (index * WORD + bits.trailing_zeros()).min(self.len);
            }
            mask = !0;
        }
        self.len
    }

    fn take(&mut self, first: u32, end: u32) {
        for slot in first..end {
            self.words[(slot / WORD) as usize] |= 1 << (slot % WORD);
        }
        self.free -= end - first;
        self.cursor = if end == self.len { 0 } else { end };
    }

    /// Gives a slot back: at once, or when the I/O that is in flight on it has ended.
    pub(super) fn free(&mut self, slot: SwapSlot) {
        match self.flights.get_mut(&slot) {
            Some(flights) => {
                assert!(!flights.freed, "a slot is freed once");
                flights.freed = true;
            }
            None => self.put_back(slot),
        }
    }

    /// I/O on the slot begins.
    pub(super) fn begin(&mut self, slot: SwapSlot) {
        assert!(self.is_used(slot), "I/O is done on slots in use only");
        self.flights.entry(slot).or_default().count += 1;
    }

    /// I/O on the slot has ended.
    pub(super) fn end(&mut self, slot: SwapSlot) {
        let flights = self.flights.get_mut(&slot).expect("what ends has begun");
        flights.count -= 1;
        if flights.count == 0 {
            let freed = flights.freed;
            self.flights.remove(&slot);
            if freed {
                self.put_back(slot);
            }
        }
    }

    fn is_used(&self, slot: SwapSlot) -> bool {
        slot.0 < self.len && self.words[(slot.0 / WORD) as usize] & (1 << (slot.0 % WORD)) != 0
    }

    pub(super) fn put_back(&mut self, slot: SwapSlot) {
        assert!(self.is_used(slot), "a slot is freed once");
        self.words[(slot.0 / WORD) as usize] &= !(1 << (slot.0 % WORD));
        self.free += 1;
    }
}
