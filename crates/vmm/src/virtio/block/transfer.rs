//! A request to read or write. If its buffers are more than devices may pin at once, it is done in
//! parts.

use std::fs::File;
use std::io;
use std::sync::Arc;

use plimsoll_pmap::{Error, GuestRam, Intent, IoGuard, PinRequest, Pmap};
use plimsoll_units::{Bytes, PAGE_SIZE, Pages};

use super::super::ring::Spans;
use super::SECTOR;
use super::bounce;
use super::direction::Direction;
use super::geometry::Geometry;
use super::task::Task;

/// The rest of a request to read or write. One part at a time is under way.
#[derive(Debug)]
pub(super) struct Transfer {
    direction: Direction,
    /// Bytes in all parts.
    length: u32,
    /// Where on the disk the part under way is, and its length: nothing before the first.
    offset: u64,
    part: u32,
    /// The buffers behind that part.
    left: Spans,
    /// What offsets and lengths of parts are multiples of.
    granularity: u64,
    /// Its data is copied; then these are the buffers of the part under way.
    copied: Option<Spans>,
    /// It is copied through the bounce buffer.
    is_bounced: bool,
}

impl Transfer {
    /// A request to move `buffers` to or from `offset`. `is_copied`: the disk is an image.
    pub(super) fn new(
        direction: Direction,
        offset: u64,
        buffers: Spans,
        geometry: Geometry,
        is_copied: bool,
    ) -> Self {
        let is_bounced = geometry.direct.is_some_and(|direct| {
            // Guest memory is mapped by whole pages, so addresses are aligned as in the guest.
            let fits = |address, len: u32| direct.memory_fits(address) && direct.block_fits(len.into());
            !direct.block_fits(offset) || buffers.iter().any(|span| !fits(span.address.0, span.len))
        });
        let granularity = geometry.granularity();
        let copied = (is_bounced || is_copied).then(Spans::default);
        Self {
            direction,
            length: buffers.len(),
            offset,
            part: 0,
            left: buffers,
            granularity,
            copied,
            is_bounced,
        }
    }

    /// Begins the next part: whole blocks in at most `most` pages, one at least. For the bounce
    /// buffer, whole sectors that lie in as many blocks as it holds.
    ///
    /// # Errors
    /// A buffer spans two regions of guest memory, which no driver asks for.
    pub(super) fn next(&mut self, memory: &Arc<Pmap>, most: Pages) -> Result<PinRequest, Error> {
        self.offset += u64::from(self.part);
        let part = if self.is_bounced {
            let before = u32::try_from(self.offset % self.granularity).expect("less than a page");
            part_of(&self.left, most, SECTOR).min(bounce::LENGTH - before)
        } else {
            part_of(&self.left, most, self.granularity)
        };
        let (part, left) = self.left.split(part).expect("no more than there is");
        (self.part, self.left) = (part.len(), left);
        if let Some(copied) = &mut self.copied {
            copied.clone_from(&part);
        }
        let intent = match self.direction {
            Direction::Read => Intent::Overwrite,
            Direction::Write => Intent::Use,
        };
        let ranges: Vec<_> = part.iter().map(|span| (span.address, Bytes(span.len.into()))).collect();
        memory.pin_request(&ranges, intent)
    }

    /// The task that moves the part under way, whose buffers are `memory`.
    pub(super) fn task(&self, memory: IoGuard) -> Task {
        Task::Move { direction: self.direction, offset: self.offset, memory, buffers: self.copied.clone() }
    }

    /// Moves the part under way through the bounce buffer. Its buffers are pinned.
    ///
    /// # Errors
    /// As for [`bounce::carry_out`].
    pub(super) fn bounce(&self, file: &File, ram: &GuestRam) -> io::Result<usize> {
        let buffers = self.copied.as_ref().map_or(&self.left, |buffers| buffers);
        bounce::carry_out(file, self.granularity, self.direction, self.offset, buffers, ram)
    }

    /// Whether it writes to the disk.
    pub(super) fn is_write(&self) -> bool {
        matches!(self.direction, Direction::Write)
    }

    /// Whether it takes the bounce buffer.
    pub(super) fn is_bounced(&self) -> bool {
        self.is_bounced
    }

    /// Whether `done` bytes are all of the part under way.
    pub(super) fn part_is(&self, done: usize) -> bool {
        usize::try_from(self.part) == Ok(done)
    }

    /// Whether there is a part after this one.
    pub(super) fn has_more(&self) -> bool {
        self.left.len() > 0
    }

    /// Bytes that it writes into the guest's buffers in all.
    pub(super) fn written(&self) -> u32 {
        match self.direction {
            Direction::Read => self.length,
            Direction::Write => 0,
        }
    }
}

/// How many bytes from the beginning of `buffers` lie in `most` pages: whole blocks of `block`
/// bytes, at least one.
fn part_of(buffers: &Spans, most: Pages, block: u64) -> u32 {
    let (mut bytes, mut room) = (0_u64, most.0);
    for span in buffers.iter() {
        let (start, len) = (span.address.0, u64::from(span.len));
        let within = start % PAGE_SIZE;
        let pages = (within + len).div_ceil(PAGE_SIZE);
        if pages > room {
            bytes += (room * PAGE_SIZE).saturating_sub(within);
            break;
        }
        bytes += len;
        room -= pages;
    }
    let all = buffers.len();
    let narrow = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX).min(all);
    narrow(bytes / block * block).max(narrow(block))
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestAddress;

    use super::super::super::ring::Span;
    use super::*;

    fn part(spans: &[(u64, u32)], most: u64) -> u32 {
        let span = |&(address, len): &(u64, u32)| Span { address: GuestAddress(address), len };
        part_of(&spans.iter().map(span).collect(), Pages(most), 512)
    }

    #[test]
    fn a_part_is_whole_sectors_within_the_bound_and_one_at_least() {
        assert_eq!(part(&[(0, 8192)], 2), 8192, "all of it");
        assert_eq!(part(&[(0, 8192)], 1), 4096);
        assert_eq!(part(&[(0x1100, 8192)], 2), 7680, "7936 bytes lie in two pages");
        assert_eq!(part(&[(0, 100), (0x2000, 924)], 1), 512, "a sector in two pages");
        assert_eq!(part(&[(0, 100), (0x2000, 924)], 2), 1024);
        assert_eq!(part(&[(0xfff, 1024)], 0), 512);
        assert_eq!(part(&[(0, 512), (0, 512), (0, 512)], 2), 1024, "a page counts each time");
    }
}
