//! What uses the model's guest memory: vCPUs, and a device.
//!
//! A page is divided into lanes. Each belongs to one user, which writes generations to it and knows
//! what it must hold. So all may use the same page at the same time, and no loss is hidden by
//! another user's write.

use std::ops::Range;

use plimsoll_sys::iovec::IoVec;
use plimsoll_units::{Bytes, PAGE_SIZE, PageNo, Pages, Ppn};
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::Arc;
use vm_memory::GuestAddress;

use super::kernel::{Frame, kernel};
use crate::address::PAGE;
use crate::inject::pin;
use crate::pmap::Pmap;
use crate::{Intent, PpnRange, Release};

/// One that is used page by page, and one that is written and given back as a whole.
pub(super) const CHUNKS: u64 = 2;
/// Pages that all users use. Those from [`NOISY`] on do not shrink to half; of the others there are
/// as many as it takes for compression to begin.
const SHARED: Range<usize> = 0..6;
const NOISY: usize = 4;
/// The page of the first vCPU alone, followed by that of the second. They give them up and get them
/// back empty.
const VCPUS_OWN: usize = 6;
/// The device's own page, which is reported as free while the device uses it.
pub(super) const DEVICES_OWN: Ppn = Ppn(8);
/// A page whose content no user verifies.
const NOBODYS: usize = 9;
const PAGES: usize = 10;
const SCRATCH: usize = 512;
/// Bytes of a page for each user.
const LANE: usize = PAGE / 3;
/// The device's number among the users.
const DEVICE: usize = 2;
/// What a vCPU does before it ends. More makes for longer executions, in which delays hit the same
/// place less often.
const STEPS: usize = 5;
/// The same where pages are shared: what that takes is longer, and it is while it lasts that they
/// must write.
const STEPS_WHILE_SHARING: usize = 15;
/// I/O requests.
const REQUESTS: usize = 2;

/// A user of guest memory.
pub(super) struct Guest {
    pmap: Arc<Pmap>,
    id: usize,
    generation: u8,
    /// What its lanes hold.
    holds: [u8; PAGES],
}

/// A chunk whose content no user verifies.
pub(super) fn scratch_chunk() -> PpnRange {
    PpnRange::new(Ppn(SCRATCH as u64), Pages::CHUNK)
}

/// The page whose content no user verifies.
pub(super) fn nobodys() -> PpnRange {
    PpnRange::page(Ppn(NOBODYS as u64))
}

/// Writes to the page that no user verifies what neither is zeros nor shrinks to half.
pub(super) fn write_nobodys() {
    kernel().store(NOBODYS * PAGE, &[noise(1, 0), noise(2, 0), noise(3, 0)].concat());
}

/// Reads the page that no user verifies.
pub(super) fn read_nobodys() {
    kernel().load(NOBODYS * PAGE, &mut [0]);
}

/// One of the pages that are used page by page.
pub(super) fn any_page() -> PageNo {
    let page = thread_rng().gen_range(0..PAGES);
    PageNo(u32::try_from(page).expect("one of a few"))
}

/// Some of the pages that are used page by page, or all of them.
pub(super) fn any_pages() -> PpnRange {
    let first = thread_rng().gen_range(0..PAGES) as u64;
    PpnRange::new(Ppn(first), Pages(thread_rng().gen_range(1..=PAGES as u64 - first)))
}

impl Guest {
    /// The vCPU `id`, 0 or 1.
    pub(super) fn vcpu(pmap: &Arc<Pmap>, id: usize) -> Self {
        Self { pmap: pmap.clone(), id, generation: 0, holds: [0; PAGES] }
    }

    pub(super) fn device(pmap: &Arc<Pmap>) -> Self {
        Self { pmap: pmap.clone(), id: DEVICE, generation: 0, holds: [0; PAGES] }
    }

    /// Writes all shared pages.
    pub(super) fn fill(mut self) -> Self {
        SHARED.for_each(|page| self.write(page));
        self
    }

    /// Writes, reads, gives up its page, and writes to the chunk that no user verifies.
    pub(super) fn run_vcpu(mut self, sharing: bool) {
        let own = VCPUS_OWN + self.id;
        for _ in 0..if sharing { STEPS_WHILE_SHARING } else { STEPS } {
            let page = if thread_rng().gen_bool(0.25) { own } else { thread_rng().gen_range(SHARED) };
            match thread_rng().gen_range(0..8) {
                0..4 => self.write(page),
                4..6 => self.verify(page),
                6 => self.give_up(own),
                _ => kernel().store(SCRATCH * PAGE, &[1]),
            }
        }
        SHARED.chain([own]).for_each(|page| self.verify(page));
    }

    /// Has a device write to some of its lanes, each time.
    pub(super) fn run_device(mut self) {
        for _ in 0..REQUESTS {
            let range = |page: u64| (GuestAddress(page * PAGE_SIZE), Bytes(PAGE_SIZE));
            let shared = range(thread_rng().gen_range(SHARED) as u64);
            let first = pin(&self.pmap, &[shared], Intent::Use);
            let second = pin(&self.pmap, &[range(DEVICES_OWN.0)], Intent::Overwrite);
            let pieces = first.pieces().iter().chain(second.pieces());
            let offset = |piece: &IoVec| self.pmap.vm().memory.mapping().offset_of(piece.base() as u64);
            let pages: Vec<usize> = pieces.map(|piece| offset(piece).unwrap() / PAGE).collect();
            // A device looks up where the pages are once, and writes there.
            let frames: Vec<(usize, Frame)> =
                pages.iter().map(|&page| (page, kernel().frame(page))).collect();
            for (page, frame) in frames {
                self.generation += 1;
                self.holds[page] = self.generation;
                kernel().dma(frame, self.lane(page), &self.content(page));
            }
            pages.iter().for_each(|&page| self.verify(page));
        }
        SHARED.for_each(|page| self.verify(page));
    }

    fn write(&mut self, page: usize) {
        self.generation += 1;
        self.holds[page] = self.generation;
        kernel().store(self.lane(page), &self.content(page));
    }

    fn verify(&self, page: usize) {
        let mut content = [0; LANE];
        kernel().load(self.lane(page), &mut content);
        let who = if self.id == DEVICE { "the device".to_owned() } else { format!("vCPU {}", self.id) };
        assert!(
            content == self.content(page),
            "page {page}: what {who} wrote there is lost: {:?}",
            &content[..8]
        );
    }

    fn give_up(&mut self, page: usize) {
        let how = if thread_rng().gen_bool(0.5) { Release::Ballooned } else { Release::Reported };
        let range = PpnRange::page(Ppn(page as u64));
        // Until it is written again it holds zeros.
        self.holds[page] = 0;
        self.pmap.release(&[range], how);
        if how == Release::Ballooned && thread_rng().gen_bool(0.5) {
            self.pmap.deflate(&[range]);
        }
    }

    /// Where its lane of a page is.
    fn lane(&self, page: usize) -> usize {
        page * PAGE + self.id * LANE
    }

    /// What its lane of a page must hold.
    fn content(&self, page: usize) -> [u8; LANE] {
        let generation = self.holds[page];
        if page >= NOISY && generation > 0 { noise(generation, self.id) } else { [generation; LANE] }
    }
}

/// What LZ4 cannot shorten, of a generation and a user (xorshift).
fn noise(generation: u8, user: usize) -> [u8; LANE] {
    let mut random = u64::from(generation) << 8 | (user as u64 + 1);
    [0; LANE].map(|_: u8| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random.to_le_bytes()[3]
    })
}
