//! A guest that swaps by itself, on memory that the host swaps, too.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plimsoll_lab::cache;
use plimsoll_pmap::{Intent, Stats, SwapSpace};
use plimsoll_units::{Bytes as Size, CHUNK_PAGES, PAGE_SIZE, Pages};
use rustix::fs::{Mode, OFlags};
use vm_memory::{Bytes, GuestAddress};

use super::host::{Host, Victims};
use super::recency::Recency;
use crate::bench::memory::guest::Guest;
use crate::bench::memory::processor::Place;

#[expect(clippy::cast_possible_truncation, reason = "4096")]
const PAGE: usize = PAGE_SIZE as usize;

/// A guest whose programs use more memory than it has, so that it pages by itself: it replaces the
/// least recently used page, and writes it to its disk first if it has changed. Its memory is a
/// pmap's; its programs, its disk and its page tables are here.
///
/// The disk reads and writes guest memory as a virtio device does. A page is therefore not brought
/// in by the host where the disk overwrites it, but it is where the disk writes it out.
pub(super) struct PagingGuest {
    memory: Guest,
    host: Host,
    /// Where in guest memory each virtual page is.
    frames: Vec<Option<usize>>,
    /// What is in each page of guest memory, those used so far.
    held: Vec<Held>,
    recency: Recency,
    /// Page after page.
    disk: Vec<u8>,
    /// How often each virtual page was written, which is what it must say.
    written: Vec<u64>,
    counts: Counts,
}

#[derive(Clone, Copy)]
struct Held {
    page: usize,
    changed: bool,
}

/// What a guest has done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) accesses: u64,
    /// Pages that the guest has read from its disk.
    pub(super) ins: u64,
    /// Pages that the guest has written to its disk.
    pub(super) outs: u64,
    /// Those of them that the host had swapped out, and had to bring in for that.
    pub(super) twice: u64,
    /// Time that all that has taken, without the host's time to choose and take pages.
    pub(super) time: Duration,
    /// Faults that the host has served.
    pub(super) faults: u64,
    /// Pages that the host has read from its swap.
    pub(super) host_ins: u64,
    /// Pages that the host has given up to its swap.
    pub(super) host_outs: u64,
}

impl PagingGuest {
    /// A guest with `chunks` chunks of memory, of which it may hold `most` pages, and programs that
    /// use `pages` pages. All of them begin on its disk, and hold what no host can compress.
    pub(super) fn new(chunks: u64, most: Pages, pages: usize, victims: Victims, seed: u64) -> Result<Self> {
        let size = usize::try_from(chunks * CHUNK_PAGES)?;
        let swap = swap_space(Pages(chunks * CHUNK_PAGES))?;
        let mut disk = vec![0; pages * PAGE];
        fastrand::Rng::with_seed(seed).fill(&mut disk);
        disk.chunks_exact_mut(PAGE).for_each(|page| page[..8].fill(0));
        Ok(Self {
            memory: Guest::new(chunks, Pages::ZERO, Some(swap), Place::Elsewhere)?,
            host: Host::new(victims, size, most),
            frames: vec![None; pages],
            held: Vec::with_capacity(size),
            recency: Recency::new(size),
            disk,
            written: vec![0; pages],
            counts: Counts::default(),
        })
    }

    /// What it has done so far.
    pub(super) fn counts(&self) -> Counts {
        let Stats { faults, traffic, .. } = self.memory.pmap.stats();
        Counts { faults, host_ins: traffic.swapped_in, host_outs: traffic.swapped_out, ..self.counts }
    }

    /// A program reads a page, and writes it where it is told to.
    pub(super) fn access(&mut self, page: usize, write: bool) -> Result<()> {
        let start = Instant::now();
        let frame = match self.frames[page] {
            Some(frame) => frame,
            None => self.page_in(page)?,
        };
        let address = address(frame);
        let found: u64 = self.memory.pmap.ram().read_obj(address).context("reading guest memory")?;
        ensure!(
            found == self.written[page],
            "page {page} was written {} times and not {found}",
            self.written[page]
        );
        if write {
            self.written[page] += 1;
            self.memory.pmap.ram().write_obj(self.written[page], address).context("writing guest memory")?;
            self.held[frame].changed = true;
        }
        self.touched(frame);
        self.counts.accesses += 1;
        self.counts.time += start.elapsed();
        self.host.relieve(&self.memory.pmap)
    }

    /// Reads a page from the guest's disk, in the place of another one.
    fn page_in(&mut self, page: usize) -> Result<usize> {
        let frame = self.make_place()?;
        let whole = (address(frame), Size(PAGE_SIZE));
        let guard = self.memory.pmap.pin(&[whole], Intent::Overwrite)?;
        let content = &self.disk[page * PAGE..][..PAGE];
        self.memory.pmap.ram().write_slice(content, whole.0).context("reading the guest's disk")?;
        drop(guard);
        self.counts.ins += 1;
        self.frames[page] = Some(frame);
        let held = Held { page, changed: false };
        match self.held.get_mut(frame) {
            Some(place) => *place = held,
            None => self.held.push(held),
        }
        Ok(frame)
    }

    /// A page of guest memory for another content: an unused one, or else the least recently used.
    fn make_place(&mut self) -> Result<usize> {
        if self.held.len() < self.held.capacity() {
            return Ok(self.held.len());
        }
        let frame = self.recency.oldest().next().context("a guest without memory")?;
        let Held { page, changed } = self.held[frame];
        if changed {
            self.page_out(page, frame)?;
        }
        self.frames[page] = None;
        Ok(frame)
    }

    /// Writes a page to the guest's disk. Where the host has swapped it out, that brings it in.
    fn page_out(&mut self, page: usize, frame: usize) -> Result<()> {
        let faults = self.memory.pmap.stats().faults;
        let whole = (address(frame), Size(PAGE_SIZE));
        let guard = self.memory.pmap.pin(&[whole], Intent::Use)?;
        let content = &mut self.disk[page * PAGE..][..PAGE];
        self.memory.pmap.ram().read_slice(content, whole.0).context("writing the guest's disk")?;
        drop(guard);
        self.counts.outs += 1;
        self.counts.twice += u64::from(self.memory.pmap.stats().faults > faults);
        self.touched(frame);
        Ok(())
    }

    fn touched(&mut self, frame: usize) {
        self.recency.touch(frame);
        self.host.touched(frame);
    }
}

impl Counts {
    /// What was done since `earlier`.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            accesses: self.accesses - earlier.accesses,
            ins: self.ins - earlier.ins,
            outs: self.outs - earlier.outs,
            twice: self.twice - earlier.twice,
            time: self.time - earlier.time,
            faults: self.faults - earlier.faults,
            host_ins: self.host_ins - earlier.host_ins,
            host_outs: self.host_outs - earlier.host_outs,
        }
    }
}

/// A file of `slots` pages without a name, which goes past the page cache where the file system can
/// do that.
fn swap_space(slots: Pages) -> Result<SwapSpace> {
    let directory = cache::directory()?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let open = |flags| rustix::fs::open(&directory, flags, Mode::RUSR | Mode::WUSR);
    let file = open(flags | OFlags::DIRECT)
        .or_else(|_| open(flags))
        .with_context(|| format!("making a swap file in {}", directory.display()))?;
    rustix::fs::ftruncate(&file, slots.bytes().0).context("extending a swap file")?;
    Ok(SwapSpace { file, slots, encrypt: false })
}

fn address(frame: usize) -> GuestAddress {
    GuestAddress(frame as u64 * PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guest itself checks what it reads.
    #[test]
    fn a_guest_that_pages_finds_what_it_wrote_whatever_the_host_takes() {
        for victims in [Victims::Random, Victims::LeastRecent] {
            let most = Pages(768);
            let mut guest = PagingGuest::new(2, most, 1536, victims, 1).unwrap();
            (0..1024).for_each(|page| guest.access(page, true).unwrap());
            let filled = guest.counts();
            assert_eq!((filled.ins, filled.outs), (1024, 0), "{filled:?}");
            (1024..4096).for_each(|index| guest.access(index % 1536, true).unwrap());
            let counts = guest.counts().since(filled);
            assert_eq!((counts.accesses, counts.ins, counts.outs), (3072, 3072, 3072), "{counts:?}");
            assert!(counts.host_ins > 0 && counts.host_outs > 0 && counts.twice > 0, "{counts:?}");
            assert!(guest.memory.pmap.stats().held <= most);
        }
    }
}
