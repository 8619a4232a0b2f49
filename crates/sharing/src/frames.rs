use std::collections::{BTreeMap, BTreeSet};

use plimsoll_units::{FrameNo, Pages};

use crate::key::Prefix;

/// Which frames there are, and how many references each has.
#[derive(Debug)]
pub(crate) struct Frames {
    limit: u32,
    used: BTreeMap<u32, (Prefix, u32)>,
    lingering: BTreeSet<u32>,
    references: u64,
}

impl Frames {
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit, used: BTreeMap::new(), lingering: BTreeSet::new(), references: 0 }
    }

    /// A free frame, with one reference: behind `after` where that is free, else with room for `room` behind it where there is.
    pub(crate) fn create(&mut self, after: Option<FrameNo>, _room: usize, prefix: Prefix) -> Option<FrameNo> {
        let free = |n: &u32| *n < self.limit && !self.used.contains_key(n) && !self.lingering.contains(n);
        let next = after.map(|after| after.0 + 1).filter(free);
        let number = next.or_else(|| (0..self.limit).find(free))?;
        self.used.insert(number, (prefix, 1));
        self.references += 1;
        Some(FrameNo(number))
    }

    /// Whether somebody refers to `frame`.
    pub(crate) fn is_used(&self, frame: FrameNo) -> bool {
        self.used.contains_key(&frame.0)
    }

    /// A frame whose content is there already comes into use, with one reference.
    pub(crate) fn adopt(&mut self, frame: FrameNo, prefix: Prefix) {
        self.lingering.remove(&frame.0);
        self.used.insert(frame.0, (prefix, 1));
        self.references += 1;
    }

    /// A frame that is free takes memory all the same: it lingers until it is punched. Nothing changes if it is in use.
    pub(crate) fn linger(&mut self, frame: FrameNo) {
        if !self.is_used(frame) {
            self.lingering.insert(frame.0);
        }
    }

    /// One reference more to a frame that has some.
    pub(crate) fn acquire(&mut self, frame: FrameNo) {
        let count = &mut self.used.get_mut(&frame.0).expect("a frame in use").1;
        *count += 1;
        self.references += 1;
    }

    /// One reference less. The prefix of its hash, where that was the last one: then it lingers until it is punched.
    pub(crate) fn release(&mut self, frame: FrameNo) -> Option<Prefix> {
        let (prefix, count) = self.used.get_mut(&frame.0).expect("a frame in use");
        let prefix = *prefix;
        *count -= 1;
        self.references -= 1;
        if *count > 0 {
            return None;
        }
        self.used.remove(&frame.0);
        self.lingering.insert(frame.0);
        Some(prefix)
    }

    /// A run of frames to punch.
    pub(crate) fn lingering_run(&self) -> Option<(FrameNo, Pages)> {
        let first = *self.lingering.first()?;
        let length = self.lingering.iter().zip(first..).take_while(|(a, b)| **a == *b).count();
        Some((FrameNo(first), Pages(length as u64)))
    }

    /// They are punched: free.
    pub(crate) fn punched(&mut self, first: FrameNo, frames: Pages) {
        self.lingering
            .retain(|n| u64::from(*n) < first.0.into() || u64::from(*n) >= u64::from(first.0) + frames.0);
    }

    pub(crate) fn in_use(&self) -> u64 {
        self.used.len() as u64
    }

    pub(crate) fn lingering(&self) -> u64 {
        self.lingering.len() as u64
    }

    pub(crate) fn references(&self) -> u64 {
        self.references
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    pub(crate) fn bytes(&self) -> usize {
        self.used.len() * 16
    }
}
