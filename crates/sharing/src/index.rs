//! The index of a domain: what has a digest, and what knowing that costs.
//!
//! # Bookkeeping, byte by byte
//!
//! Under 20 bytes a page, whatever the pages are, and without steps while it grows:
//!
//! | for each | bytes | where |
//! |---|---|---|
//! | page of a member | 4: nothing, hint and 30 bits of its digest, or the number of its frame | `holding.rs` |
//! | hint, frame | 9 in the index and what lines leave empty: 64 bytes for 7 entries, 88 of 100 of them used, are 10.4 | `index/line.rs` |
//! | frame | 5.3: 30 bits of its digest and whether it is confirmed in 4, up to 255 references in 1, 2 bits | `frames/block.rs` |
//!
//! A hint takes 14.4 bytes; a page that shares a frame with one other 12; a page that has a frame
//! for itself, which is the dearest, 19.7.
//!
//! The reasons:
//! - *An entry is found from its page or frame* when it is to be removed: both keep the prefix of
//!   the digest, which alone says where in the index the entry is. So no entry needs a link, and
//!   the index places entries as it likes.
//! - *A page's number in 31 bits* (a *place*: members have consecutive ranges) leaves one bit to
//!   tell hints from frames.
//! - *40 bits for a digest in an entry* suffice, because comparing in full follows, and because no
//!   member knows what they come of (`index/tag.rs`).
//! - *A byte for references*, with a map for the frames that have more: these are few, and each
//!   saves far more memory than its map entry takes. The paper uses 16 bits (section 4.2).
//! - *Makers of frames in runs*: a member's frames are neighbours as its pages are
//!   (`frames/makers.rs`).
//! - *Lines of 64 bytes* are what memory is read in: a look-up waits for one, and look-ups of a
//!   batch wait together (`Domain::look_up`).
//! - *Growing by one line* instead of doubling: nothing else waits meanwhile, and the table is
//!   never half empty (`index/shape.rs`).
//!
//! # Alternatives not taken
//!
//! - *A hash map from std*: 35 bytes an entry on average, and all other members wait while it moves
//!   16 million entries.
//! - *Two candidate lines for each entry* (cuckoo hashing): fuller, but a look-up that finds
//!   nothing reads both, and most look-ups find nothing.
//! - *Full digests for frames*: 12 bytes more for each; comparing pages is needed anyway.
//! - *Sweeping the index* when a member leaves: walking what the member had finds each of its
//!   entries at once.

use std::collections::BTreeMap;
use std::io;

use crate::key::{Key, Prefix};
use crate::target::Target;

mod line;
mod lines;
mod shape;
mod tag;
#[cfg(test)]
mod tests;

use line::{FARTHEST, SLOTS};
use lines::Lines;
use shape::{Group, Shape};
use tag::Tag;

/// From the key of a digest to the frame or the hint that has it: a hash table that grows and
/// shrinks by one line at a time.
///
/// An entry is in its home line, which its key says ([`Shape`]), or in one of the next lines of its
/// group, or, where these are full, in the overflow. A look-up costs one access to memory in most
/// cases, and that can be asked for beforehand ([`Index::prefetch`]).
///
/// Entries are removed without a mark, but their home line still says how far to look for its
/// entries. So as entries come and go, groups are laid out anew, one after the other.
#[derive(Debug)]
pub(crate) struct Index {
    shape: Shape,
    lines: Lines,
    /// Entries of groups that are full. In order, so that those of a group stand together.
    overflow: BTreeMap<Tag, Target>,
    entries: usize,
    /// How often something was set or removed.
    changes: u64,
    /// Entries removed since a group was last laid out anew because of that.
    removed: usize,
    /// Counts them.
    dealt: usize,
    /// Entries on their way from one shape of their group to another; kept for its memory.
    hand: Vec<(Tag, Target)>,
}

/// Used slots of 100, at most. More, and few entries are in their home lines; fewer cost memory: at
/// 88 an entry takes 10.4 bytes. A table that gets emptier than [`FULL_ENOUGH`] shrinks.
const FULL: usize = 88;
/// Far enough below [`FULL`] that a table whose size varies a little does not lay its entries out
/// anew each time.
const FULL_ENOUGH: usize = 78;
/// Entries removed for each group that is laid out anew: so each group is laid out anew when about
/// an eighth of its entries have changed.
const REMOVALS: usize = 16;

/// Where an entry is.
enum Spot {
    Line { address: usize, slot: usize },
    Overflow(Tag),
}

impl Index {
    /// Makes an empty index.
    pub(crate) fn new() -> io::Result<Self> {
        let shape = Shape::new();
        let mut lines = Lines::default();
        (0..shape.len()).try_for_each(|_| lines.push())?;
        Ok(Self {
            shape,
            lines,
            overflow: BTreeMap::new(),
            entries: 0,
            changes: 0,
            removed: 0,
            dealt: 0,
            hand: Vec::new(),
        })
    }

    /// Fetches the memory that a look-up of this prefix needs first.
    #[inline]
    pub(crate) fn prefetch(&self, prefix: Prefix) {
        let group = self.shape.group(prefix);
        self.lines.prefetch(group.address(group.home(prefix)));
    }

    /// Makes the first access, and fetches more memory if that shows that it will be needed.
    /// Returns what the first line shows, which may be all.
    #[inline]
    pub(crate) fn prefetch_more(&self, key: Key) -> Option<Target> {
        let tag = Tag::of(key);
        let group = self.shape.group(tag.prefix());
        let home = group.home(tag.prefix());
        let line = self.lines.get(group.address(home));
        let found = line.find(tag).map(|slot| line.target(slot));
        if found.is_none() {
            for further in 1..=line.reach() {
                self.lines.prefetch(group.address(round(group, home + further)));
            }
        }
        found
    }

    /// What has this digest.
    #[inline]
    pub(crate) fn find(&self, key: Key) -> Option<Target> {
        self.spot(key).map(|spot| match spot {
            Spot::Line { address, slot } => self.lines.get(address).target(slot),
            Spot::Overflow(tag) => self.overflow[&tag],
        })
    }

    /// Points the entry of this digest at `target`, in place of what it pointed at.
    pub(crate) fn set(&mut self, key: Key, target: Target) {
        self.changes += 1;
        match self.spot(key) {
            Some(Spot::Line { address, slot }) => self.lines.get_mut(address).set_target(slot, target),
            Some(Spot::Overflow(tag)) => drop(self.overflow.insert(tag, target)),
            None => {
                let tag = Tag::of(key);
                self.insert(self.shape.group(tag.prefix()), tag, target);
                self.entries += 1;
                if self.entries * 100 > self.lines.len() * SLOTS * FULL {
                    self.grow();
                }
            }
        }
    }

    /// Removes `target`, which has a digest of this prefix. Returns whether it was there.
    pub(crate) fn remove(&mut self, prefix: Prefix, target: Target) -> bool {
        let removed = self.remove_from_lines(prefix, target) || self.remove_from_overflow(prefix, target);
        if removed {
            self.changes += 1;
            self.entries -= 1;
            self.after_removal();
        }
        removed
    }

    /// A number that changes whenever an entry is set or removed. While it is the same, a look-up
    /// finds the same.
    #[inline]
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The memory that the index takes, about: that of the overflow is estimated.
    pub(crate) fn bytes(&self) -> usize {
        // Nodes of a BTreeMap are at least half full.
        let overflow = self.overflow.len() * 2 * size_of::<(Tag, Target)>();
        self.lines.bytes() + overflow + self.hand.capacity() * size_of::<(Tag, Target)>()
    }

    /// Whether `target` is known by a digest of this prefix.
    #[cfg(test)]
    pub(crate) fn has(&self, prefix: Prefix, target: Target) -> bool {
        let group = self.shape.group(prefix);
        let home = group.home(prefix);
        let reach = self.lines.get(group.address(home)).reach();
        let in_lines = (0..=reach).any(|further| {
            let line = self.lines.get(group.address(round(group, home + further)));
            line.find_target(target).is_some()
        });
        in_lines || self.overflow.iter().any(|(tag, found)| tag.prefix() == prefix && *found == target)
    }

    #[cfg(test)]
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    #[inline]
    fn spot(&self, key: Key) -> Option<Spot> {
        let tag = Tag::of(key);
        let group = self.shape.group(tag.prefix());
        let home = group.home(tag.prefix());
        let address = group.address(home);
        let line = self.lines.get(address);
        if let Some(slot) = line.find(tag) {
            return Some(Spot::Line { address, slot });
        }
        for further in 1..=line.reach() {
            let address = group.address(round(group, home + further));
            if let Some(slot) = self.lines.get(address).find(tag) {
                return Some(Spot::Line { address, slot });
            }
        }
        (line.overflows() && self.overflow.contains_key(&tag)).then_some(Spot::Overflow(tag))
    }

    /// Adds an entry that is not there yet, without making room.
    fn insert(&mut self, group: Group, tag: Tag, target: Target) {
        let home = group.home(tag.prefix());
        for further in 0..group.lines.min(FARTHEST + 1) {
            let line = self.lines.get_mut(group.address(round(group, home + further)));
            if !line.is_full() {
                line.push(tag, target);
                self.lines.get_mut(group.address(home)).extend_reach(further);
                return;
            }
        }
        self.lines.get_mut(group.address(home)).set_overflows();
        self.overflow.insert(tag, target);
    }

    fn remove_from_lines(&mut self, prefix: Prefix, target: Target) -> bool {
        let group = self.shape.group(prefix);
        let home = group.home(prefix);
        let reach = self.lines.get(group.address(home)).reach();
        (0..=reach).any(|further| {
            let line = self.lines.get_mut(group.address(round(group, home + further)));
            line.find_target(target).map(|slot| line.remove(slot)).is_some()
        })
    }

    fn remove_from_overflow(&mut self, prefix: Prefix, target: Target) -> bool {
        let prefix = u64::from(prefix.0);
        let mut range = self.overflow.range(Tag::least(prefix)..Tag::least(prefix + 1));
        let tag = range.find(|(_, found)| **found == target).map(|(tag, _)| *tag);
        tag.is_some_and(|tag| self.overflow.remove(&tag).is_some())
    }

    fn after_removal(&mut self) {
        if self.entries * 100 < self.lines.len() * SLOTS * FULL_ENOUGH {
            self.shrink();
        }
        self.removed += 1;
        if self.removed >= REMOVALS {
            self.removed = 0;
            self.dealt = self.dealt.wrapping_add(1);
            for group in self.shape.parts(self.shape.numbered(self.dealt)) {
                self.pick_up(group);
                self.deal();
            }
        }
    }

    fn grow(&mut self) {
        if let Err(error) = self.lines.push() {
            // An entry without room in its group goes to the overflow. It is still found, only
            // slower.
            tracing::debug!(%error, "the index of shared pages does not grow for now");
            return;
        }
        self.pick_up(self.shape.next());
        self.shape.grow();
        self.deal();
        // By the time of the next step its memory is here.
        self.prefetch_group(self.shape.next());
    }

    fn prefetch_group(&self, group: Group) {
        (0..group.lines).for_each(|line| self.lines.prefetch(group.address(line)));
    }

    fn shrink(&mut self) {
        let mut smaller = self.shape;
        if !smaller.shrink() {
            return;
        }
        // The group that will be one may be two now.
        for group in self.shape.parts(smaller.next()) {
            self.pick_up(group);
        }
        self.lines.pop();
        self.shape = smaller;
        self.deal();
    }

    /// Moves all entries of a group to `hand`.
    fn pick_up(&mut self, group: Group) {
        self.prefetch_group(group);
        for line in 0..group.lines {
            let line = self.lines.get_mut(group.address(line));
            self.hand.extend(line.entries());
            *line = line::Line::default();
        }
        let prefixes = group.prefixes();
        let tags = Tag::least(prefixes.start)..Tag::least(prefixes.end);
        while let Some((tag, target)) = self.overflow.range(tags.clone()).next().map(|(k, v)| (*k, *v)) {
            self.overflow.remove(&tag);
            self.hand.push((tag, target));
        }
    }

    /// Moves all entries of `hand` to where they belong: first as many as possible to their home
    /// lines, then the others.
    fn deal(&mut self) {
        let mut hand = std::mem::take(&mut self.hand);
        hand.retain(|(tag, target)| {
            let group = self.shape.group(tag.prefix());
            let line = self.lines.get_mut(group.address(group.home(tag.prefix())));
            let full = line.is_full();
            if !full {
                line.push(*tag, *target);
            }
            full
        });
        for (tag, target) in hand.drain(..) {
            self.insert(self.shape.group(tag.prefix()), tag, target);
        }
        self.hand = hand;
    }
}

/// A line of the group, counted on from its first after its last.
fn round(group: Group, line: usize) -> usize {
    if line < group.lines { line } else { line - group.lines }
}
