use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use plimsoll_sys::Event;
use plimsoll_units::{PAGE_SIZE, Pages, Ppn};
use vm_memory::{Bytes, GuestAddress};

use crate::content::swap::tests::space;
use crate::memory::uffd::Uffd;
use crate::sync::lock;
use crate::{Config, Error, GrantSource, Pmap, PpnRange, Stats};

/// Longest wait for anything that should happen at once. Generous: the machine may be busy with
/// other tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A source that remembers what it was asked for, and answers by itself only if told how.
#[derive(Default)]
pub(crate) struct Source {
    wanted: AtomicU64,
    calls: AtomicU64,
    pub(crate) answer: OnceLock<Box<dyn Fn(Pages) + Send + Sync>>,
    troubles: Mutex<Vec<Error>>,
    freed: AtomicU64,
}

impl Source {
    pub(crate) fn wanted(&self) -> Pages {
        Pages(self.wanted.load(Ordering::SeqCst))
    }

    /// How often it was told that the VM holds less.
    pub(crate) fn freed(&self) -> u64 {
        self.freed.load(Ordering::SeqCst)
    }

    /// What the swap was in trouble with so far.
    pub(crate) fn troubles(&self) -> Vec<String> {
        lock(&self.troubles).iter().map(ToString::to_string).collect()
    }
}

impl GrantSource for Source {
    fn want(&self, total: Pages) {
        self.wanted.store(total.0, Ordering::SeqCst);
        self.calls.fetch_add(1, Ordering::SeqCst);
        if let Some(answer) = self.answer.get() {
            answer(total);
        }
    }

    fn freed(&self) {
        self.freed.fetch_add(1, Ordering::SeqCst);
    }

    fn trouble(&self, what: Error) {
        lock(&self.troubles).push(what);
    }
}

/// A pmap whose faults are served until this is dropped.
pub(crate) struct Served {
    pub(crate) pmap: Arc<Pmap>,
    pub(crate) source: Arc<Source>,
    stop: Event,
    servers: Vec<JoinHandle<()>>,
}

/// RAM of `chunks` chunks below a hole and one above it, with a grant of `grant` pages, and nowhere
/// to put pages.
pub(crate) fn served(chunks: u64, grant: u64, huge_pages: bool) -> Served {
    paged(chunks, grant, huge_pages, 0, 0)
}

/// The same with a store of at most `store` pages and a swap of `slots` pages.
pub(crate) fn paged(chunks: u64, grant: u64, huge_pages: bool, store: u64, slots: u64) -> Served {
    let low = PpnRange::new(Ppn(0), Pages(512 * (chunks - 1)));
    let regions = vec![low, PpnRange::new(HIGH, Pages::CHUNK)];
    let uffd = Uffd::open().expect("these tests need /dev/userfaultfd or the right to call userfaultfd");
    let source = Arc::new(Source::default());
    let swap = (slots > 0).then(|| space(slots, true));
    let config = Config { regions, uffd, huge_pages, grant: Pages(grant), store: Pages(store), swap };
    let pmap = Pmap::new(config, source.clone()).unwrap();
    let stop = Event::new().unwrap();
    let serve = || {
        let (pmap, stop) = (Arc::clone(&pmap), stop.clone());
        std::thread::spawn(move || pmap.serve_faults(&stop).unwrap())
    };
    Served { servers: vec![serve(), serve()], pmap, source, stop }
}

/// The first page of RAM above the hole.
pub(crate) const HIGH: Ppn = Ppn(1 << 20);

impl Served {
    /// Writes `value` to the page's first bytes, as a guest would.
    pub(crate) fn write(&self, ppn: u64, value: u64) {
        self.pmap.ram().write_obj(value, address(ppn)).unwrap();
    }

    pub(crate) fn read(&self, ppn: u64) -> u64 {
        self.pmap.ram().read_obj(address(ppn)).unwrap()
    }

    /// Writes in a thread that may have to wait.
    pub(crate) fn spawn_write(&self, ppn: u64, value: u64) -> JoinHandle<()> {
        let ram = self.pmap.ram().clone();
        std::thread::spawn(move || ram.write_obj(value, address(ppn)).unwrap())
    }

    /// The figures once every transition under way has been recorded: a served page wakes its
    /// thread before that.
    pub(crate) fn stats(&self) -> Stats {
        drop(self.pmap.vm().chunks.lock_all());
        self.pmap.stats()
    }

    /// Waits until the swap has taken all that it was given.
    pub(crate) fn settle(&self) {
        eventually("the swap is idle", || {
            self.pmap.vm().content.swap().is_none_or(crate::content::Swap::is_idle)
        });
    }

    pub(crate) fn free_slots(&self) -> Pages {
        self.pmap.vm().content.swap().map_or(Pages::ZERO, crate::content::Swap::free_slots)
    }

    pub(crate) fn audit(&self) {
        self.pmap.audit().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.signal();
        for server in self.servers.drain(..) {
            server.join().unwrap();
        }
    }
}

pub(crate) fn address(ppn: u64) -> GuestAddress {
    GuestAddress(ppn * PAGE_SIZE)
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        std::thread::yield_now();
    }
}
