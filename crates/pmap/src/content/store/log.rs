use std::collections::BTreeSet;
use std::io;

use super::index::Index;
use super::record::{HEADER, Header, LARGEST, UNIT};
use super::reserve::Reserve;
use crate::address::PAGE;

/// Bytes of a segment: what cleaning copies at most. A larger one stalls the fault that waits for
/// it longer (10 us here), a smaller one wastes more at its end, where on average half a record
/// does not fit (1 % here).
pub(super) const SEGMENT: usize = 16 * PAGE;
/// Segments with less dead memory than this are not worth cleaning. At least twice a record: half
/// of what is freed may go at the end of the segment that survivors fill up, and the other half
/// makes up for the record whose removal led to cleaning.
const WORTH_CLEANING: usize = SEGMENT / 16;
/// With this many pages or more, the open segment keeps the memory that it does not use yet: system
/// calls and page faults saved for at most 1.6 % of the memory.
const LARGE: usize = 1024;

/// Records one after the other, in segments. New ones go to the end of the open segment.
///
/// A removed record leaves dead memory behind. [`Log::clean`] moves what lives in the segment that
/// has most of it to the end of the log, so that the segment is free.
#[derive(Debug)]
pub(super) struct Log {
    memory: Reserve,
    /// How many segments there can be.
    most: usize,
    segments: Vec<Segment>,
    /// Segments without content and memory.
    unused: Vec<u32>,
    /// The segment that was just cleaned: without content, but with memory.
    cleaned: Option<u32>,
    open: Option<u32>,
    /// Segments worth cleaning, by their dead bytes.
    worth_cleaning: BTreeSet<(usize, u32)>,
    /// Pages of all segments.
    pages: usize,
    /// Bytes of all records.
    live: usize,
    /// The live records of the segment under cleaning.
    survivors: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    /// Bytes from its start that were given to records.
    used: usize,
    /// Bytes of its records that were not removed.
    live: usize,
    /// Pages from its start that have memory, or may have.
    pages: usize,
    /// Gets no more records.
    closed: bool,
}

impl Segment {
    /// Bytes that cleaning would free.
    fn dead(&self) -> usize {
        let end = if self.closed { self.pages * PAGE } else { self.used };
        end - self.live
    }

    /// Bytes with memory that new records will use.
    fn room(&self) -> usize {
        if self.closed { 0 } else { self.pages * PAGE - self.used }
    }

    fn fits(&self, size: usize) -> bool {
        self.used + size <= SEGMENT
    }
}

impl Log {
    /// Makes a log of at most `most` segments.
    pub(super) fn new(most: usize) -> io::Result<Self> {
        Ok(Self {
            memory: Reserve::new(most.saturating_mul(SEGMENT))?,
            most,
            segments: Vec::new(),
            unused: Vec::new(),
            cleaned: None,
            open: None,
            worth_cleaning: BTreeSet::new(),
            pages: 0,
            live: 0,
            survivors: Vec::new(),
        })
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> &[u8] {
        self.memory.bytes()
    }

    /// Pages of memory in use.
    pub(super) fn pages(&self) -> usize {
        self.pages
    }

    /// Bytes of memory in use that hold no record and will not hold the next ones.
    pub(super) fn waste(&self) -> usize {
        let room = self.open.map_or(0, |no| self.segments[no as usize].room());
        self.pages * PAGE - self.live - room
    }

    /// Pages that a record of `size` bytes needs, or `None` where there is no segment for it.
    pub(super) fn need(&self, size: usize) -> Option<usize> {
        if let Some(open) = self.open()
            && open.fits(size)
        {
            return Some((open.used + size).div_ceil(PAGE).saturating_sub(open.pages));
        }
        let there_is = self.segments.len() - self.unused.len() < self.most;
        there_is.then(|| size.div_ceil(PAGE))
    }

    /// Pages that `count` records of any size need at most, or `None` where there are no segments
    /// for them.
    pub(super) fn need_for(&self, count: usize) -> Option<usize> {
        let open = self.open().copied().unwrap_or(Segment {
            used: SEGMENT,
            pages: SEGMENT / PAGE,
            ..Segment::default()
        });
        if count <= (SEGMENT - open.used) / LARGEST {
            return Some((open.used + count * LARGEST).div_ceil(PAGE).saturating_sub(open.pages));
        }
        let rest = count - (SEGMENT - open.used) / LARGEST;
        let segments = rest.div_ceil(SEGMENT / LARGEST);
        let whole = SEGMENT / PAGE - open.pages + segments * (SEGMENT / PAGE);
        if self.segments.len() - self.unused.len() + segments > self.most {
            return None;
        }
        // The last segment takes only the pages that it needs.
        let last = rest - (segments - 1) * (SEGMENT / LARGEST);
        let spared = SEGMENT / PAGE - (last * LARGEST).div_ceil(PAGE);
        Some(whole - spared)
    }

    /// Adds a record for `header` and `packed`, for which there must be a segment, and returns its
    /// place.
    pub(super) fn append(&mut self, header: &Header, packed: &[u8]) -> u32 {
        let at = self.take(header.size());
        let record = &mut self.memory.bytes_mut()[at..at + header.size()];
        let (head, body) = record.split_at_mut(HEADER);
        header.write(head);
        body[..packed.len()].copy_from_slice(packed);
        place_of(at)
    }

    pub(super) fn header(&self, place: u32) -> Header {
        Header::read(&self.memory.bytes()[offset(place)..])
    }

    pub(super) fn set_header(&mut self, place: u32, header: &Header) {
        header.write(&mut self.memory.bytes_mut()[offset(place)..]);
    }

    /// The packed page of the record at `place`.
    pub(super) fn packed(&self, place: u32) -> &[u8] {
        let record = &self.memory.bytes()[offset(place)..];
        &record[HEADER..HEADER + usize::from(Header::read(record).len)]
    }

    /// Removes the record at `place`.
    pub(super) fn remove(&mut self, place: u32) {
        let size = self.header(place).size();
        let no = segment_of(offset(place));
        self.live -= size;
        self.change(no, |segment| segment.live -= size);
        if self.segments[no as usize].live == 0 {
            self.empty(no);
        }
    }

    /// Cleans the segment with most dead memory, if one is worth it, and says in `index` where its
    /// records are now. Never takes more memory than it gives back.
    pub(super) fn clean(&mut self, index: &mut Index) {
        let Some(&(_, victim)) = self.worth_cleaning.last() else { return };
        let before = self.pages;
        self.collect(victim, index);
        let live = self.survivors.len();
        self.live -= live;
        self.change(victim, |segment| *segment = Segment { pages: segment.pages, ..Segment::default() });
        if self.open == Some(victim) {
            self.open = None;
        }
        self.cleaned = Some(victim);
        // The open segment will grow by what it lacks: the other first gives up as much.
        let lacks = self.open().map_or(0, |open| SEGMENT / PAGE - open.pages);
        self.shrink(victim, (SEGMENT / PAGE - lacks).min(self.segments[victim as usize].pages));
        let survivors = std::mem::take(&mut self.survivors);
        let mut rest = &survivors[..];
        while !rest.is_empty() {
            let header = Header::read(rest);
            let (record, others) = rest.split_at(header.size());
            let at = self.take(record.len());
            self.memory.bytes_mut()[at..at + record.len()].copy_from_slice(record);
            index.set(header.handle, place_of(at));
            debug_assert!(self.pages <= before, "cleaning took more memory than it gave back");
            rest = others;
        }
        self.survivors = survivors;
        if let Some(no) = self.cleaned.take() {
            self.empty(no);
        }
    }

    /// Gives back the unused part of the open segment, except in a large log.
    pub(super) fn trim(&mut self) {
        if let Some(no) = self.open
            && self.pages < LARGE
        {
            self.shrink(no, self.segments[no as usize].used.div_ceil(PAGE));
        }
    }

    /// Removes everything.
    pub(super) fn clear(&mut self) {
        self.memory.discard(0..self.segments.len() * SEGMENT);
        self.segments.clear();
        self.unused.clear();
        self.worth_cleaning.clear();
        (self.open, self.pages, self.live) = (None, 0, 0);
    }

    /// Copies the live records of a segment to `survivors`.
    fn collect(&mut self, no: u32, index: &Index) {
        self.survivors.clear();
        let start = no as usize * SEGMENT;
        let end = start + self.segments[no as usize].used;
        let mut at = start;
        while at < end {
            let record = &self.memory.bytes()[at..];
            let header = Header::read(record);
            // A handle that was freed since, or belongs to a younger record, leads elsewhere.
            if index.get(header.handle) == Some(place_of(at)) {
                self.survivors.extend_from_slice(&record[..header.size()]);
            }
            at += header.size();
        }
    }

    /// Takes the next `size` bytes of the log and returns where they begin.
    fn take(&mut self, size: usize) -> usize {
        let no = match self.open {
            Some(no) if self.segments[no as usize].fits(size) => no,
            _ => self.open_next(),
        };
        let at = no as usize * SEGMENT + self.segments[no as usize].used;
        self.live += size;
        let mut grown = 0;
        self.change(no, |segment| {
            segment.used += size;
            segment.live += size;
            grown = segment.used.div_ceil(PAGE).saturating_sub(segment.pages);
            segment.pages += grown;
        });
        self.pages += grown;
        at
    }

    /// Closes the open segment and opens another.
    fn open_next(&mut self) -> u32 {
        if let Some(full) = self.open {
            self.change(full, |segment| segment.closed = true);
        }
        let no = self.cleaned.take().or_else(|| self.unused.pop()).unwrap_or_else(|| {
            self.segments.push(Segment::default());
            u32::try_from(self.segments.len() - 1).expect("places, which are larger, have 31 bits")
        });
        self.open = Some(no);
        no
    }

    /// Gives back what memory segment `no`, in which no record is left, has.
    fn empty(&mut self, no: u32) {
        self.shrink(no, 0);
        self.change(no, |segment| *segment = Segment::default());
        self.unused.push(no);
        if self.open == Some(no) {
            self.open = None;
        }
    }

    /// Gives back all but the first `keep` pages of a segment.
    fn shrink(&mut self, no: u32, keep: usize) {
        let had = self.segments[no as usize].pages;
        if had > keep {
            let start = no as usize * SEGMENT;
            self.memory.discard(start + keep * PAGE..start + had * PAGE);
            self.pages -= had - keep;
            self.change(no, |segment| segment.pages = keep);
        }
    }

    /// Changes a segment and keeps the order of cleaning right.
    fn change(&mut self, no: u32, change: impl FnOnce(&mut Segment)) {
        let segment = &mut self.segments[no as usize];
        let before = segment.dead();
        change(segment);
        let after = segment.dead();
        if before == after {
            return;
        }
        if before >= WORTH_CLEANING {
            self.worth_cleaning.remove(&(before, no));
        }
        if after >= WORTH_CLEANING {
            self.worth_cleaning.insert((after, no));
        }
    }

    fn open(&self) -> Option<&Segment> {
        self.open.map(|no| &self.segments[no as usize])
    }
}

/// Records are found by the unit in which they begin.
fn place_of(at: usize) -> u32 {
    u32::try_from(at / UNIT).expect("the log has at most 2^31 units")
}

fn offset(place: u32) -> usize {
    place as usize * UNIT
}

fn segment_of(at: usize) -> u32 {
    u32::try_from(at / SEGMENT).expect("segments are fewer than places")
}
