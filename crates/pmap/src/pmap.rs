use std::collections::BTreeSet;

use plimsoll_units::{Pages, Ppn};

use vm_memory::GuestMemoryBackend;

use crate::account::{Account, SharingTraffic, Traffic};
use crate::aside::{SPARE_CHUNKS, Touches};
use crate::chunk::{Chunk, lock};
use crate::error::Error;
use crate::frames::Pool;
use crate::grant::GrantSource;
use crate::host_range::{CHUNK, HostRange, PAGE};
use crate::layout::{ChunkNo, Layout, Place, PpnRange};
use crate::mmap::Mapping;
use crate::mutation::Mutations;
use crate::page_out::Eviction;
use crate::page_set::Slot;
use crate::pagemap::Pagemap;
use crate::pin_budget::PinBudget;
use crate::ram::{GuestRam, RamRegion};
use crate::scan::Scan;
use crate::share::{MAPPINGS_OF_RUN, most_for_short_runs, most_mappings};
use crate::store::Store;
use crate::swap::{Swap, SwapSpace, Written};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::tally::{Kind, Tally};
use crate::uffd::Uffd;

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
    pub(crate) layout: Layout,
    pub(crate) mapping: Arc<Mapping>,
    pub(crate) uffd: Uffd,
    pub(crate) pagemap: Pagemap,
    pub(crate) huge_pages: bool,
    /// Each chunk's lock is held for the whole of a transition, system calls included. A thread holds one at a time,
    /// or takes all in order. The account's lock is innermost and held for arithmetic only.
    chunks: Box<[Mutex<Chunk>]>,
    /// Taken after a chunk's lock and before the account's.
    pub(crate) store: Mutex<Store>,
    /// Locks inside, and calls nobody.
    pub(crate) swap: Option<Swap>,
    /// Writes to the swap that failed: they hold the content of their pages.
    pub(crate) stranded: Mutex<Vec<Written>>,
    pub(crate) swap_failed: AtomicBool,
    /// Outermost, but for `eviction`.
    pub(crate) scan: Mutex<Scan>,
    /// Chunks that the scanner is to look at first. Its lock is held for a look only.
    pub(crate) hurried: Mutex<BTreeSet<ChunkNo>>,
    /// Where shared pages come from; none are shared where there is nothing. Its lock is held for a look only.
    pub(crate) pool: Mutex<Option<Arc<Pool>>>,
    /// The chunk behind guest RAM where copies are put together. Taken after a chunk's lock.
    pub(crate) staging: Mutex<()>,
    /// Mappings that pages may take that are, or were, shared.
    pub(crate) most_mappings: u64,
    /// Outermost.
    pub(crate) eviction: Mutex<Eviction>,
    /// Taken before the account's, and before no other.
    pub(crate) pins: Arc<PinBudget>,
    account: Mutex<Account>,
    pub(crate) source: Arc<dyn GrantSource>,
    ram: GuestRam,
    pub(crate) touches: Touches,
    pub(crate) mutations: Mutations,
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
        let layout = Layout::new(&config.regions)?;
        let size = layout.pages().bytes();
        let mapped = usize::try_from(size.0)
            .map_err(std::io::Error::other)
            .and_then(|len| Mapping::new(len, (SPARE_CHUNKS + 2) * CHUNK, config.huge_pages));
        let mapping = Arc::new(mapped.map_err(|source| Error::Map { size, source })?);
        let pagemap = Pagemap::open().map_err(|source| Error::Pagemap { source })?;
        let action = "register guest RAM";
        let armed = config.uffd.arm(mapping.range(0, mapping.len()));
        armed.map_err(|source| Error::Uffd { action, source })?;
        let chunks = layout.chunks();
        let store =
            Store::new(config.store).map_err(|source| Error::Map { size: config.store.bytes(), source })?;
        let swap = config.swap.map(Swap::new).transpose().map_err(|source| Error::Swap { source })?;
        Ok(Arc::new(Self {
            ram: GuestRam::new(&layout, &mapping),
            store: Mutex::new(store),
            swap,
            stranded: Mutex::default(),
            swap_failed: AtomicBool::new(false),
            scan: Mutex::default(),
            hurried: Mutex::default(),
            pool: Mutex::default(),
            staging: Mutex::default(),
            most_mappings: most_mappings(),
            eviction: Mutex::default(),
            pins: Arc::default(),
            account: Mutex::new(Account::new(config.grant, chunks)),
            chunks: (0..chunks).map(|_| Mutex::default()).collect(),
            layout,
            mapping,
            uffd: config.uffd,
            pagemap,
            huge_pages: config.huge_pages,
            source,
            touches: Touches::default(),
            mutations: Mutations::default(),
        }))
    }

    /// Guest RAM region by region, in order, for KVM's memory slots.
    pub fn regions(&self) -> impl Iterator<Item = &RamRegion> {
        self.ram.iter()
    }

    /// Where guest RAM is, all of it: the host address, and how long, with the address space behind it where a
    /// [`Sampler`](crate::Sampler) keeps pages. Nothing else is there.
    pub fn place(&self) -> (u64, plimsoll_units::Bytes) {
        let HostRange { start, len } = self.mapping.range(0, self.mapping.len() + self.mapping.spare());
        (start, plimsoll_units::Bytes(len))
    }

    /// Guest RAM for CPU access by devices.
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// The VM's memory in figures.
    pub fn stats(&self) -> Stats {
        let account = self.account();
        let size = self.layout.pages();
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
            mappings_full: account.mappings() + MAPPINGS_OF_RUN > most_for_short_runs(self.most_mappings),
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
        self.swap_failed.load(Ordering::Relaxed)
    }

    /// Raises the grant by `pages` and serves the faults that wait for it. The answer to [`GrantSource::want`]: where
    /// it is less than was wanted, zero included, those who wait for a whole chunk make do with single pages.
    pub fn add_grant(&self, pages: Pages) {
        self.account().add_grant(pages);
        self.serve_waiting();
        self.account().make_do();
        self.serve_waiting();
    }

    /// Lowers the grant as far as it goes and returns by how much: to what is held, plus what faults wait for, plus
    /// `keep`. From the return on, the VM never holds more than the lower grant, so the pages can be promised to
    /// somebody else.
    pub fn return_grant(&self, keep: Pages) -> Pages {
        self.account().return_grant(keep)
    }

    pub(crate) fn account(&self) -> MutexGuard<'_, Account> {
        lock(&self.account)
    }

    /// Locks a chunk, which must be one of the layout's.
    pub(crate) fn chunk(&self, no: ChunkNo) -> MutexGuard<'_, Chunk> {
        lock(&self.chunks[no.0])
    }

    /// Locks all chunks, in order. Nothing is in transition while the guards live.
    pub(crate) fn all_chunks(&self) -> Vec<MutexGuard<'_, Chunk>> {
        self.chunks.iter().map(lock).collect()
    }

    /// Tells the source what is wanted, if that has changed. Call it without any lock.
    pub(crate) fn tell_source(&self) {
        let mut news = self.account().start_telling();
        while let Some(total) = news {
            self.source.want(total);
            news = self.account().keep_telling();
        }
    }

    /// Switches a deliberate defect on, or off again.
    #[cfg(test)]
    pub(crate) fn mutate(&self, mutation: Option<crate::mutation::Mutation>) {
        self.account().forgiving |= mutation.is_some();
        self.mutations.set(mutation);
    }

    /// Tells the source that the VM holds less. Call it without any lock.
    pub(crate) fn tell_freed(&self) {
        self.source.freed();
    }

    pub(crate) fn chunk_range(&self, no: ChunkNo) -> HostRange {
        self.mapping.range(no.0 * CHUNK, CHUNK)
    }

    /// The host addresses of `len` pages of a chunk from `first` on.
    pub(crate) fn run_range(&self, no: ChunkNo, (first, len): (Slot, Slot)) -> HostRange {
        self.mapping.range(self.offset(Place { chunk: no, slot: first }), usize::from(len) * PAGE)
    }

    pub(crate) fn page_address(&self, place: Place) -> u64 {
        self.run_range(place.chunk, (place.slot, 1)).start
    }

    /// The bytes of the mapping before a page.
    pub(crate) fn offset(&self, place: Place) -> usize {
        place.chunk.0 * CHUNK + usize::from(place.slot) * PAGE
    }

    pub(crate) fn ppn(&self, place: Place) -> Ppn {
        self.layout.ppn(place.chunk, place.slot)
    }

    /// Records what became of a chunk that counted for `before`: what it does not have any more is uncharged, and
    /// returned. More than before it must not have, unless that is charged already.
    pub(crate) fn record(&self, before: Tally, chunk: &Chunk) -> Pages {
        let after = chunk.tally();
        let freed = before.backed.saturating_sub(after.backed);
        let mut account = self.account();
        account.changed(before, after);
        account.uncharge(freed);
        freed
    }
}

impl std::fmt::Debug for Pmap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pmap").field(&self.stats()).finish()
    }
}
