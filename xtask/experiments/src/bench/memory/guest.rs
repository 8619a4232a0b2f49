//! A pmap whose faults a thread serves, as in the VMM.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plimsoll_pmap::uffd::Uffd;
use plimsoll_pmap::{Config, Event, GrantSource, Pmap, PpnRange, Stats, SwapSpace};
use plimsoll_units::{PAGE_SIZE, Pages, Ppn};
use vm_memory::{Bytes, GuestAddress};

use super::buffer::PageBuffer;
use super::processor::{self, Place};

/// Longest wait for pages to be taken. Only a disk that does not answer reaches it.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The bit of a page's entry in `/proc/self/pagemap` that says that it is in memory.
const PRESENT: u64 = 1 << 63;

/// Guest memory whose faults are served by a thread, as in the VMM.
pub(crate) struct Guest {
    pub(crate) pmap: Arc<Pmap>,
    pagemap: File,
    stop: Event,
    server: Option<JoinHandle<()>>,
}

/// The benchmarks grant at the start all that they use.
struct NoMore;

impl GrantSource for NoMore {
    fn want(&self, _total: Pages) {}
}

impl Guest {
    /// Guest memory of `chunks` chunks, with huge pages and as much grant as it may ever need.
    ///
    /// With `store`, pages that are taken from it are compressed where they shrink, and with `swap`
    /// swapped out. Its faults are served at `place`.
    pub(crate) fn new(chunks: u64, store: Pages, swap: Option<SwapSpace>, place: Place) -> Result<Self> {
        let size = Pages(chunks * Pages::CHUNK.0);
        let config = Config {
            regions: vec![PpnRange::new(Ppn(0), size)],
            uffd: Uffd::open()?,
            huge_pages: true,
            // A page that comes back is charged before what it took in the store is free.
            grant: size + store,
            store,
            swap,
        };
        let pmap = Pmap::new(config, Arc::new(NoMore))?;
        let stop = Event::new().context("making an event")?;
        let served = Arc::clone(&pmap);
        let stopped = stop.clone();
        let server = std::thread::spawn(move || {
            processor::stay(place);
            served.serve_faults(&stopped).expect("a userfaultfd that works can be read until it is closed");
        });
        let pagemap = File::open("/proc/self/pagemap").context("opening /proc/self/pagemap")?;
        Ok(Self { pmap, pagemap, stop, server: Some(server) })
    }

    /// Writes to the start of a page, as a guest would.
    pub(crate) fn write(&self, ppn: u64, value: u64) -> Result<()> {
        self.pmap.ram().write_obj(value, GuestAddress(ppn * PAGE_SIZE)).context("writing guest memory")
    }

    /// Writes to a page that is there, as a guest would; how long that took.
    pub(crate) fn overwrite(&self, ppn: u64) -> Result<Duration> {
        let (ram, address) = (self.pmap.ram(), GuestAddress(ppn * PAGE_SIZE));
        let start = Instant::now();
        ram.write_obj(ppn, address).context("writing guest memory")?;
        Ok(start.elapsed())
    }

    /// Fills a page, as a guest would.
    pub(crate) fn fill(&self, ppn: u64, page: &PageBuffer) -> Result<()> {
        self.pmap.ram().write_slice(&page.0, GuestAddress(ppn * PAGE_SIZE)).context("filling guest memory")
    }

    /// Reads the first word of a page, as a guest would; how long that took, and the word.
    pub(crate) fn touch(&self, ppn: u64) -> Result<(Duration, u64)> {
        let (ram, address) = (self.pmap.ram(), GuestAddress(ppn * PAGE_SIZE));
        let start = Instant::now();
        let word = ram.read_obj(address).context("reading guest memory")?;
        Ok((start.elapsed(), word))
    }

    /// Whether the kernel has the page in memory.
    pub(crate) fn is_resident(&self, ppn: u64) -> Result<bool> {
        let region = self.pmap.regions().next().context("a guest has memory")?;
        let page = region.host() as u64 / PAGE_SIZE + ppn;
        let mut entry = [0; 8];
        self.pagemap.read_exact_at(&mut entry, page * 8).context("reading /proc/self/pagemap")?;
        Ok(u64::from_ne_bytes(entry) & PRESENT != 0)
    }

    /// Takes pages from the guest until `enough` says so.
    pub(crate) fn page_out(&self, enough: impl Fn(&Stats) -> bool) -> Result<()> {
        let end = Instant::now() + TIMEOUT;
        while !enough(&self.pmap.stats()) {
            self.pmap.page_out(Pages::CHUNK);
            ensure!(
                Instant::now() < end,
                "too few pages could be taken from the guest: {:?}",
                self.pmap.stats()
            );
        }
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop.signal();
        if let Some(server) = self.server.take() {
            // It has said what was wrong.
            server.join().ok();
        }
    }
}
