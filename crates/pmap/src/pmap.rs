use std::io;
use std::time::Duration;

use plimsoll_units::{Bytes, FrameNo, PageNo, Pages};
use vm_memory::{GuestAddress, GuestMemoryBackend};
use vmm_sys_util::eventfd::EventFd;

use crate::account::{GrantSource, Kind, Ledger, SharingTraffic, Stalled, Traffic};
use crate::address::{HostRange, PpnRange};
use crate::content::{Content, FramePool, FrameSource, Frames, MAPPINGS_OF_RUN, SwapSpace};
use crate::driver::audit::{Mismatch, audit};
use crate::driver::eviction::{Eviction, PagedOut};
use crate::driver::inflation::Inflation;
use crate::driver::pin::{Intent, IoGuard, PinRequest, Pins};
use crate::driver::promotion::promote;
use crate::driver::sampler::Sampler;
use crate::driver::scanner::{ScanOrder, Scanned, Scanner};
use crate::driver::service::{serve_freed, serve_waiting};
use crate::driver::{faults, release};
use crate::error::Error;
use crate::memory::uffd::Uffd;
use crate::memory::{GuestRam, Memory, RamRegion};
use crate::page::{Chunks, Touches};
use crate::sync::Arc;
use crate::transition::Vm;
use crate::transition::frames::references;
use crate::transition::release::{Release, ReleaseOutcome, reset};

/// What guest memory is made of.
#[derive(Debug)]
pub struct Config {
    /// Guest RAM, in order and apart, each region of whole chunks (2 MiB): typically RAM below the 32-bit hole and
    /// RAM above 4 GiB.
    pub regions: Vec<PpnRange>,
    /// Who is asked about page faults: made in this process, used for nothing else.
    pub uffd: Uffd,
    /// Whether untouched chunks become large where the grant allows. Without, every page is asked for.
    pub huge_pages: bool,
    /// Pages that this VM may hold from the start.
    pub grant: Pages,
    /// Pages of machine memory that compressed pages may occupy at most; none are compressed where it is zero.
    pub store: Pages,
    /// Where pages are swapped to; none are where there is nothing.
    pub swap: Option<SwapSpace>,
}

/// One VM's guest memory.
///
/// Faults are served only while some thread is in [`Pmap::serve_faults`]. All methods may be called from any thread
/// at any time. Except for [`Pmap::pin`] and
/// [`PinRequest::wait`](crate::PinRequest::wait) none of them waits for a grant, and none calls the [`GrantSource`] with a
/// lock held.
pub struct Pmap {
    vm: Arc<Vm>,
    scanner: Arc<Scanner>,
    eviction: Eviction,
    pins: Arc<Pins>,
}

/// A VM's memory in figures, all of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Guest RAM.
    pub size: Pages,
    /// Pages that the VM may hold.
    pub grant: Pages,
    /// Pages that it holds, or is about to: never less than what is resident, never above `grant`.
    pub held: Pages,
    /// Pages in the guest's balloon.
    pub ballooned: Pages,
    /// Pages with nothing behind them, the ballooned ones included.
    pub absent: Pages,
    /// Pages that are compressed.
    pub compressed: Pages,
    /// The part of `held` that they occupy.
    pub store: Pages,
    /// Pages that are in the swap only.
    pub swapped: Pages,
    /// Pages that are frames.
    pub shared: Pages,
    /// Pages that were dropped because they held zeros, and were not touched since: part of `absent`.
    pub zero: Pages,
    /// There are almost as many mappings as a process may have: only runs of pages are shared for now.
    pub mappings_full: bool,
    /// What was compressed and swapped, and back.
    pub traffic: Traffic,
    /// What was shared, and broken again.
    pub sharing: SharingTraffic,
    /// Chunks with no page behind them.
    pub chunks_empty: u64,
    /// Chunks that the kernel serves unasked.
    pub chunks_large: u64,
    /// Chunks served page by page.
    pub chunks_small: u64,
    /// Pages beyond the grant that faults wait for now.
    pub wanted: Pages,
    /// Faults that needed memory, since the start.
    pub faults: u64,
    /// How many of them had to wait for a grant.
    pub waits: u64,
}

impl Pmap {
    /// Makes guest memory: all of it absent, none of it costing anything yet.
    ///
    /// Opens `/proc/self/pagemap`; needs no file afterwards.
    ///
    /// # Errors
    /// [`Error::Layout`] and [`Error::NoRam`] for regions that make no sense; [`Error::Map`], [`Error::Uffd`] and
    /// [`Error::Pagemap`] where the kernel refuses.
    pub fn new(config: Config, source: Arc<dyn GrantSource>) -> Result<Arc<Self>, Error> {
        let memory = Memory::new(&config.regions, config.uffd, config.huge_pages)?;
        let content = Content::new(config.store, config.swap)?;
        let chunks = memory.layout().chunks();
        let vm = Arc::new(Vm {
            memory,
            chunks: Chunks::new(chunks),
            content,
            frames: Frames::new(),
            ledger: Ledger::new(config.grant, chunks, source),
            touches: Touches::default(),
        });
        let scanner = Arc::new(Scanner::new(Arc::clone(&vm)));
        Ok(Arc::new(Self {
            eviction: Eviction::new(Arc::clone(&vm), Arc::clone(&scanner)),
            pins: Arc::new(Pins::new(Arc::clone(&vm))),
            scanner,
            vm,
        }))
    }

    /// Guest RAM region by region, in order, for KVM's memory slots.
    pub fn regions(&self) -> impl Iterator<Item = &RamRegion> {
        self.vm.memory.ram().iter()
    }

    /// Where guest RAM is, all of it: the host address, and how long, with the address space behind it where a
    /// [`Sampler`](crate::Sampler) keeps pages. Nothing else is there.
    pub fn place(&self) -> (u64, Bytes) {
        let HostRange { start, len } = self.vm.memory.range();
        (start, Bytes(len))
    }

    /// Guest RAM for CPU access by devices.
    pub fn ram(&self) -> &GuestRam {
        self.vm.memory.ram()
    }

    /// Serves page faults until `stop` is readable. Run it on a thread of its own; two may run side by side.
    ///
    /// This thread waits for nothing but faults and the swap's answers: a fault that the grant does not cover is
    /// queued, and whoever makes room serves it; a page in the swap is asked for, and put in place when it comes. It
    /// never touches guest memory, where it would wait for itself.
    ///
    /// # Errors
    /// [`Error::Uffd`] where faults can no longer be read. Whatever touches absent memory then hangs, so the VM must
    /// be stopped.
    pub fn serve_faults(&self, stop: &EventFd) -> Result<(), Error> {
        faults::serve_faults(&self.vm, stop)
    }

    /// The VM's memory in figures.
    pub fn stats(&self) -> Stats {
        let account = self.vm.account();
        let size = self.vm.memory.layout().pages();
        Stats {
            size,
            grant: account.grant(),
            held: account.held(),
            ballooned: account.ballooned(),
            // A page that is being brought back is charged before it leaves where it was, and counts twice meanwhile.
            absent: size
                .saturating_sub(account.held().saturating_sub(account.store()))
                .saturating_sub(account.compressed())
                .saturating_sub(account.swapped())
                .saturating_sub(account.shared()),
            shared: account.shared(),
            zero: account.zero(),
            mappings_full: account.mappings() + MAPPINGS_OF_RUN > self.vm.frames.most_for_short_runs(),
            compressed: account.compressed(),
            store: account.store(),
            swapped: account.swapped(),
            traffic: account.traffic,
            sharing: account.sharing,
            chunks_empty: account.chunks(Kind::Empty),
            chunks_large: account.chunks(Kind::Large),
            chunks_small: account.chunks(Kind::Small),
            wanted: account.wanted(),
            faults: account.faults(),
            waits: account.waits(),
        }
    }

    /// Whether the swap could not be written, so that nothing is swapped out until the next [`Pmap::reset`].
    pub fn swap_failed(&self) -> bool {
        self.vm.content.swap_failed()
    }

    /// Time that the VM was stalled for memory so far.
    pub fn stalled(&self) -> Stalled {
        self.vm.account().stalled()
    }

    /// Sets at how many stalled faults the VM makes no progress: the number of its processors; 1
    /// until it is set.
    ///
    /// The number of faults stands for that of processors. The kernel can say which thread faults,
    /// but with KVM that is often a thread of the kernel (asynchronous page faults). So
    /// [`Stalled::full`] is too small where the other processors are idle or two wait for the same
    /// page, and too large where a guest goes on with another task meanwhile, or has given a fault
    /// up.
    pub fn set_tasks(&self, tasks: u64) {
        self.vm.account().stalls.set_tasks(tasks);
    }

    /// Notes whether the VM's processors are held because of memory, whatever faults there are.
    pub fn note_held(&self, held: bool) {
        self.vm.account().stalls.hold(held);
    }

    /// Raises the grant by `pages` and serves the faults that wait for it. The answer to [`GrantSource::want`]: where
    /// it is less than was wanted, zero included, those who wait for a whole chunk make do with single pages.
    pub fn add_grant(&self, pages: Pages) {
        self.vm.account().add_grant(pages);
        serve_waiting(&self.vm);
        self.vm.account().make_do();
        serve_waiting(&self.vm);
    }

    /// Lowers the grant as far as it goes and returns by how much: to what is held, plus what faults wait for, plus
    /// `keep`. From the return on, the VM never holds more than the lower grant, so the pages can be promised to
    /// somebody else.
    pub fn return_grant(&self, keep: Pages) -> Pages {
        self.vm.account().return_grant(keep)
    }

    /// Takes back pages that the guest does not need. They read as zeros when they are next touched.
    ///
    /// `ranges` come from the guest: any order, overlaps and nonsense are fine. They are sorted into chunks first; a
    /// whole chunk is given back at once, part of a large one breaks it up. Whoever waits for a grant is served from
    /// what this frees.
    pub fn release(&self, ranges: &[PpnRange], how: Release) -> ReleaseOutcome {
        release::release(&self.vm, ranges, how)
    }

    /// Notes that the guest has taken pages out of its balloon. They stay absent until they are touched. Pages that
    /// were not in the balloon are left alone.
    pub fn deflate(&self, ranges: &[PpnRange]) {
        release::deflate(&self.vm, ranges);
    }

    /// Gives all guest memory back, for a reboot: everything is absent, the balloon empty, and the next touch of any
    /// page finds zeros. Returns by how much the VM holds less. The grant stays. Swap space that could not be written is tried
    /// anew.
    ///
    /// Stop the vCPUs first, and let device I/O end. Faults that still wait are woken to be taken anew.
    ///
    /// # Errors
    /// [`Error::IoInFlight`] while pages are pinned, with nothing changed; [`Error::Uffd`] and [`Error::Discard`]
    /// where the kernel refuses, with the memory as it was, in which case the VM must not go on.
    pub fn reset(&self) -> Result<Pages, Error> {
        let freed = reset(&self.vm)?;
        serve_freed(&self.vm, freed);
        Ok(freed)
    }

    /// Takes `wish` pages, or some more, from the guest. Those that hold nothing but zeros are dropped, those that shrink to
    /// half are compressed, and the others swapped out.
    ///
    /// Victims are random (Waldspurger 2002, section 3.3), chunk by chunk, those first that samples have shown to be idle; except
    /// for pages that faults have brought in since eviction last came by: those get a second chance. So what is taken by
    /// mistake is taken once.
    ///
    /// May wait for the disk, though never for a grant. Those who wait for one are served from what this frees. One thread does
    /// this at a time; others wait for it.
    pub fn page_out(&self, wish: Pages) -> PagedOut {
        self.eviction.page_out(wish)
    }

    /// Takes the pages of `ranges` from the guest, in use or not, like `madvise(MADV_PAGEOUT)`: for a caller that knows better than
    /// [`Pmap::page_out`] what will not be needed. They go the same ways.
    ///
    /// Pages that are not there are passed over, and so are those that are not RAM. Those that find no room in the store or the
    /// swap stay, and so do those under device I/O or being sampled; what came of it is
    /// [`stuck`](PagedOut::stuck) where there was no room for a batch.
    ///
    /// May wait as `page_out` does.
    pub fn page_out_of(&self, ranges: &[PpnRange]) -> PagedOut {
        self.eviction.page_out_of(ranges)
    }

    /// Makes up to `most` small chunks large again, now that pressure has passed: those that have at least half of their
    /// pages, as far as the grant suffices for the rest; returns how many. What is compressed is brought back first. What is
    /// in the swap is asked for, so that a later call finds it there. Chunks with pages in the balloon stay small.
    ///
    /// The kernel is asked for a huge page at once, and makes one later where it has none now.
    pub fn promote(&self, most: usize) -> usize {
        promote(&self.vm, most)
    }

    /// Looks for pages that hold zeros, or what others hold, too, and shares them; for so much of this thread's processor
    /// time, or until all of the VM has been looked at. Pages are looked at in random order, those first that
    /// [`Pmap::hurry`] has named; those that have not changed are passed over, and so are those that were broken lately,
    /// for a while that grows.
    ///
    /// May block as long as the [`FrameSource`](crate::FrameSource) does, but never for a grant.
    pub fn scan(&self, order: ScanOrder, budget: Duration) -> Scanned {
        self.scanner.scan(order, budget)
    }

    /// Has every page looked at as if for the first time: whoever was told of them has forgotten it.
    pub fn scan_anew(&self) {
        self.scanner.forget();
    }

    /// Has pages looked at before all others, because they were just loaded from a file that others may have loaded, too.
    pub fn hurry(&self, ranges: &[PpnRange]) {
        self.scanner.hurry(ranges);
    }

    /// From now on pages are shared with those frames. What was shared before must have ended: [`Pmap::leave_frames`].
    ///
    /// # Errors
    /// The pool cannot be mapped.
    pub fn join_frames(&self, pool: FramePool, source: Arc<dyn FrameSource>) -> io::Result<()> {
        self.scanner.join(pool, source)
    }

    /// Ends all sharing: pages get back their own copies, as far as the grant has room for which nobody waits. Returns how
    /// many are left; call it again when there is room. With none left the pool is let go.
    pub fn leave_frames(&self) -> Pages {
        self.scanner.leave()
    }

    /// The frames that pages are, or that are still to be given back for them.
    pub fn references(&self) -> Vec<(PageNo, FrameNo)> {
        references(&self.vm)
    }

    /// Shares pages with frames that the source holds for them. What cannot be shared is given back. Large chunks are broken up
    /// for it only where the last [`ScanOrder`](crate::ScanOrder) said so, and where it pays.
    pub fn share(&self, pages: &[(PageNo, FrameNo)]) {
        self.scanner.share(pages);
    }

    /// A request to prepare ranges of guest memory, given as (address, length), for asynchronous
    /// I/O. It locks nothing yet. Ranges may overlap; empty ones are left out of the result.
    ///
    /// # Errors
    /// [`Error::OutsideRam`] where a range is not wholly in one region of RAM.
    pub fn pin_request(&self, ranges: &[(GuestAddress, Bytes)], intent: Intent) -> Result<PinRequest, Error> {
        self.pins.request(ranges, intent)
    }

    /// Pins ranges of guest memory: [`Pmap::pin_request`] and [`PinRequest::wait`] in one.
    ///
    /// # Errors
    /// [`Error::OutsideRam`] where a range is not wholly in one region of RAM; nothing is locked then.
    pub fn pin(&self, ranges: &[(GuestAddress, Bytes)], intent: Intent) -> Result<IoGuard, Error> {
        Ok(self.pin_request(ranges, intent)?.wait())
    }

    /// How many pages devices may pin together: a quarter of the grant, so that three quarters can
    /// make room for what a device waits for. A single larger request is pinned while it is alone.
    pub fn most_pinned(&self) -> Pages {
        self.pins.most()
    }

    /// Compares every page's state with the kernel's view of it, and the account with both, while nothing moves: all
    /// transitions wait for as long as it takes, a few milliseconds for each GiB.
    ///
    /// # Errors
    /// Every mismatch found, at most three for each chunk, one for each that is aside, and seven
    /// for the whole. Each is a defect of this crate, or of somebody who mapped over guest memory.
    pub fn audit(&self) -> Result<(), Vec<Mismatch>> {
        audit(&self.vm)
    }
}

impl Inflation {
    /// Gathers for `pmap`.
    pub fn new(pmap: Arc<Pmap>) -> Self {
        Self::over(Arc::clone(&pmap.vm))
    }
}

impl Sampler {
    /// A sampler that takes `samples` samples a period, at least 1 and at most
    /// [`MAX_SAMPLES`](crate::MAX_SAMPLES).
    pub fn new(pmap: Arc<Pmap>, samples: u32) -> Self {
        Self::over(Arc::clone(&pmap.vm), samples)
    }
}

#[cfg(test)]
impl Pmap {
    pub(crate) fn vm(&self) -> &Arc<Vm> {
        &self.vm
    }

    #[cfg(not(feature = "model-check"))]
    pub(crate) fn eviction(&self) -> &Eviction {
        &self.eviction
    }
}

impl std::fmt::Debug for Pmap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pmap").field(&self.stats()).finish()
    }
}
