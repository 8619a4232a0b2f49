use std::io;
use std::time::Duration;

use plimsoll_sys::Event;
use plimsoll_units::{Bytes, FrameNo, PageNo, Pages};
use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::account::{GrantSource, Ledger, Stalled};
use crate::address::{HostRange, PpnRange};
use crate::content::{Content, FramePool, FrameSource, Frames, SwapSpace};
use crate::driver::audit::{Mismatch, audit};
use crate::driver::eviction::{Eviction, PagedOut};
use crate::driver::inflation::Inflation;
use crate::driver::pin::{Intent, IoGuard, PinRequest, Pins};
use crate::driver::promotion::promote;
use crate::driver::sampler::Sampler;
use crate::driver::scanner::{ScanOrder, Scanned, Scanner};
use crate::driver::service::{serve_freed, serve_waiting};
use crate::driver::stats::Stats;
use crate::driver::{faults, release};
use crate::error::Error;
use crate::memory::uffd::Uffd;
use crate::memory::{GuestRam, Memory, RamRegion};
use crate::page::{Chunks, Probes, Touches};
use crate::sync::Arc;
use crate::transition::Vm;
use crate::transition::frames::references;
use crate::transition::release::{Release, ReleaseOutcome, reset};

/// What guest memory is made of.
#[derive(Debug)]
pub struct Config {
    /// Guest RAM, in order and apart, each region of whole chunks (2 MiB): typically RAM below the
    /// 32-bit hole and RAM above 4 GiB.
    pub regions: Vec<PpnRange>,
    /// The userfaultfd for guest RAM: made in this process, and used for nothing else.
    pub uffd: Uffd,
    /// Whether untouched chunks become large if the grant allows. If not, every page is asked for.
    pub huge_pages: bool,
    /// Pages that this VM may hold from the start.
    pub grant: Pages,
    /// Most pages of machine memory that compressed pages may occupy; zero to compress none.
    pub store: Pages,
    /// Where pages are swapped to; `None` to swap none.
    pub swap: Option<SwapSpace>,
}

/// One VM's guest memory.
///
/// Faults are served only while a thread is in [`Pmap::serve_faults`]. All methods may be called
/// from any thread at any time. Only [`Pmap::pin`] and
/// [`PinRequest::wait`] wait for a grant.
pub struct Pmap {
    vm: Arc<Vm>,
    scanner: Arc<Scanner>,
    eviction: Eviction,
    pins: Arc<Pins>,
}

impl Pmap {
    /// Makes guest memory: all of it absent, at no cost yet.
    ///
    /// Opens `/proc/self/pagemap`; needs no file afterwards.
    ///
    /// # Errors
    /// [`Error::Layout`] and [`Error::NoRam`] for invalid regions; [`Error::Map`], [`Error::Uffd`],
    /// [`Error::Pagemap`] and [`Error::Swap`] where the kernel refuses.
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
            probes: Probes::default(),
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

    /// The host address and length of guest RAM, with the address space behind it where a
    /// [`Sampler`] keeps pages. Nothing else is there.
    pub fn place(&self) -> (u64, Bytes) {
        let HostRange { start, len } = self.vm.memory.range();
        (start, Bytes(len))
    }

    /// Guest RAM for CPU access by devices.
    pub fn ram(&self) -> &GuestRam {
        self.vm.memory.ram()
    }

    /// Serves page faults until `stop` is readable. Run it on a thread of its own; two may run side
    /// by side.
    ///
    /// The thread waits for nothing but faults and the swap's answers. A fault that the grant does
    /// not cover is queued until there is room; a page in the swap is asked for, and put in place
    /// when it comes.
    ///
    /// # Errors
    /// [`Error::Uffd`] if faults can no longer be read. Touches of absent memory then hang, so the
    /// VM must be stopped.
    pub fn serve_faults(&self, stop: &Event) -> Result<(), Error> {
        faults::serve_faults(&self.vm, stop)
    }

    /// The VM's memory in figures.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.vm)
    }

    /// Whether a write to the swap has failed, so that nothing is swapped out until the next
    /// [`Pmap::reset`].
    pub fn swap_failed(&self) -> bool {
        self.vm.content.swap_failed()
    }

    /// Time that the VM was stalled for memory so far.
    pub fn stalled(&self) -> Stalled {
        self.vm.account().stalled()
    }

    /// Sets the number of stalled faults at which the VM makes no progress: the number of its
    /// processors. It is 1 until it is set.
    ///
    /// The number of faults stands for that of processors. The kernel can say which thread faults,
    /// but with KVM that is often a thread of the kernel (asynchronous page faults). So
    /// [`Stalled::full`] is too small if other processors are idle or two wait for the same page,
    /// and too large if a guest goes on with another task meanwhile or gives a fault up.
    pub fn set_tasks(&self, tasks: u64) {
        self.vm.account().stalls.set_tasks(tasks);
    }

    /// Notes whether the VM's processors are stopped for lack of memory, whatever faults there are.
    pub fn note_held(&self, held: bool) {
        self.vm.account().stalls.hold(held);
    }

    /// Raises the grant by `pages` and serves the faults that wait for it. The answer to
    /// [`GrantSource::want`]: if it is less than was wanted, zero included, faults that wait for a
    /// whole chunk accept single pages.
    pub fn add_grant(&self, pages: Pages) {
        self.vm.account().add_grant(pages);
        serve_waiting(&self.vm);
        self.vm.account().accept_pages();
        serve_waiting(&self.vm);
    }

    /// Lowers the grant as far as it goes, and returns by how much: down to what is held, plus what
    /// faults wait for, plus `keep`. When this returns, the VM never again holds more than the
    /// lower grant, so the pages can be promised to another VM.
    pub fn return_grant(&self, keep: Pages) -> Pages {
        self.vm.account().return_grant(keep)
    }

    /// Takes back pages that the guest does not need. They read as zeros when they are next
    /// touched.
    ///
    /// `ranges` come from the guest: any order, overlaps and pages outside of RAM are fine. They
    /// are sorted into chunks first. A whole chunk is given back at once; part of a large one
    /// breaks it up. Waiting faults are served from what this frees.
    pub fn release(&self, ranges: &[PpnRange], how: Release) -> ReleaseOutcome {
        release::release(&self.vm, ranges, how)
    }

    /// Notes that the guest has taken pages out of its balloon. They stay absent until they are
    /// touched. Pages that were not in the balloon are left alone.
    pub fn deflate(&self, ranges: &[PpnRange]) {
        release::deflate(&self.vm, ranges);
    }

    /// Gives all guest memory back, for a reboot: everything is absent, the balloon is empty, and
    /// the next touch of any page finds zeros. Returns by how much the VM holds less. The grant
    /// stays. A swap whose writes failed is tried again.
    ///
    /// Stop the vCPUs first, and let device I/O end. Faults that still wait are woken, and ask
    /// again.
    ///
    /// # Errors
    /// [`Error::IoInFlight`] while pages are pinned, with nothing changed; [`Error::Uffd`],
    /// [`Error::Aside`] and [`Error::Discard`] where the kernel refuses, with the memory as it was,
    /// in which case the VM must not go on.
    pub fn reset(&self) -> Result<Pages, Error> {
        let freed = reset(&self.vm)?;
        serve_freed(&self.vm, freed);
        Ok(freed)
    }

    /// Takes `wish` pages, or some more, from the guest. Pages of zeros are dropped, those that
    /// shrink to half are compressed, and the others are swapped out.
    ///
    /// Victims are random (Waldspurger 2002, section 3.3), chunk by chunk; first those that samples
    /// have shown to be idle. Pages that faults have brought in since eviction last looked at their
    /// chunk get a second chance, so that a page that is taken by mistake is taken once.
    ///
    /// May wait for the disk, but never for a grant. Waiting faults are served from what this
    /// frees. One thread does this at a time; others wait for it.
    pub fn page_out(&self, wish: Pages) -> PagedOut {
        self.eviction.page_out(wish)
    }

    /// Takes the pages of `ranges` from the guest, whether or not they are in use, like
    /// `madvise(MADV_PAGEOUT)`: for a caller that knows better than [`Pmap::page_out`] what will
    /// not be needed. They go to the same places.
    ///
    /// Missing pages and pages outside of RAM are passed over. Pages stay that find no room in the
    /// store or the swap, that are under device I/O, or that are being sampled. The result is
    /// [`stuck`](PagedOut::stuck) if there was no room for a batch.
    ///
    /// May wait as `page_out` does.
    pub fn page_out_of(&self, ranges: &[PpnRange]) -> PagedOut {
        self.eviction.page_out_of(ranges)
    }

    /// Makes up to `most` small chunks large again, when pressure has passed; returns how many.
    /// Those are chunks with at least half of their pages, as far as the grant suffices for the
    /// rest. Compressed pages are brought back first. Pages in the swap are asked for, so that a
    /// later call finds them there. Chunks with ballooned pages stay small.
    ///
    /// The kernel is asked for a huge page at once, and makes one later if it has none now.
    pub fn promote(&self, most: usize) -> usize {
        promote(&self.vm, most)
    }

    /// Finds pages that hold zeros and drops them, and pages that other VMs have too and shares
    /// them, until this thread has used `budget` of processor time or a pass has ended. Pages are
    /// looked at in random order, first those named to [`Pmap::prioritize`]. Pages that have not
    /// changed are passed over; so are pages whose sharing has ended lately, for longer each time.
    ///
    /// May block as long as the [`FrameSource`] does, but never for a grant.
    pub fn scan(&self, order: ScanOrder, budget: Duration) -> Scanned {
        self.scanner.scan(order, budget)
    }

    /// Has every page looked up as if for the first time, because the source has forgotten all.
    pub fn scan_anew(&self) {
        self.scanner.forget();
    }

    /// Has pages scanned before all others, because they were just loaded from a file that other
    /// VMs may have loaded too.
    pub fn prioritize(&self, ranges: &[PpnRange]) {
        self.scanner.prioritize(ranges);
    }

    /// Shares pages with the frames of `pool` from now on. Earlier sharing must have ended:
    /// [`Pmap::leave_frames`].
    ///
    /// # Errors
    /// The pool's file cannot be mapped.
    pub fn join_frames(&self, pool: FramePool, source: Arc<dyn FrameSource>) -> io::Result<()> {
        self.scanner.join(pool, source)
    }

    /// Ends all sharing: pages get copies of their own, as far as the grant has pages that no fault
    /// waits for. Returns how many pages are still shared; call it again when there is room. The
    /// pool is released when none is left.
    pub fn leave_frames(&self) -> Pages {
        self.scanner.leave()
    }

    /// The frames that pages are mappings of, or had and have not given back yet.
    pub fn references(&self) -> Vec<(PageNo, FrameNo)> {
        references(&self.vm)
    }

    /// Shares pages with frames that the source holds for them, and gives back the frames that do
    /// not match. Large chunks are broken up for it only if the last
    /// [`ScanOrder`] allowed it, and if it pays.
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
    /// [`Error::OutsideRam`] where a range is not wholly in one region of RAM; nothing is locked
    /// then.
    pub fn pin(&self, ranges: &[(GuestAddress, Bytes)], intent: Intent) -> Result<IoGuard, Error> {
        Ok(self.pin_request(ranges, intent)?.wait())
    }

    /// Pages that devices may pin together: a quarter of the grant, so that three quarters can make
    /// room for what a device waits for. A single larger request is pinned while it is alone.
    pub fn most_pinned(&self) -> Pages {
        self.pins.most()
    }

    /// Compares every page's state with the kernel's view of it, and the account with both. All
    /// transitions wait meanwhile: a few milliseconds for each GiB.
    ///
    /// # Errors
    /// Every mismatch found: at most three for each chunk, one for each place of a sample, and
    /// seven for the whole. Each is a defect of this crate, or of a program that mapped over guest
    /// memory.
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
