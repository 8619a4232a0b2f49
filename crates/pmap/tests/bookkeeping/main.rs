//! What bookkeeping costs, measured: the heap of this process, all that it has outside of guest
//! memory, and the kernel's page tables. Printed with `cargo test -p plimsoll-pmap --test
//! bookkeeping -- --nocapture`.
//!
//! | what | grows with |
//! |---|---|
//! | a lock, a state and a list a chunk | the VM's size |
//! | the swap's bitmap, a bit a slot | the VM's size less its reservation |
//! | a table of 8 bytes a page | the small chunks |
//! | headers and index of the store | what it holds; charged to the VM with it |
//! | write and read buffers of the swap, 1.5 MiB, as far as they were ever used; rings; the cipher's keys | nothing: fixed for each VM |
//! | the kernel's page tables, 8 bytes a page, for a huge page too | what was ever resident |

#![expect(clippy::unwrap_used, reason = "a test")]

mod global_alloc;

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use plimsoll_pmap::Event;
use plimsoll_pmap::uffd::Uffd;
use plimsoll_pmap::{Config, GrantSource, Pmap, PpnRange, Stats, SwapSpace};
use plimsoll_units::{CHUNK_PAGES, PAGE_SIZE, Pages, Ppn};
use vm_memory::{Bytes, GuestAddress};

use global_alloc::allocated;

/// 4 GiB.
const SIZE: Pages = Pages(1 << 20);
const CHUNKS: u64 = SIZE.0 / CHUNK_PAGES;

/// Parts of guest memory that bookkeeping may cost: where there is no pressure, and where every
/// chunk is small.
const CALM: f64 = 0.0001;
const SMALL: f64 = 0.005;

/// The heap is everybody's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

struct Nobody;

impl GrantSource for Nobody {
    fn want(&self, _total: Pages) {}
}

/// A VM whose faults are served, and what the process had before there was it.
struct Vm {
    pmap: Arc<Pmap>,
    stop: Event,
    server: Option<JoinHandle<()>>,
    before: Cost,
    _alone: MutexGuard<'static, ()>,
}

/// Bytes of memory.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Of the heap.
    heap: u64,
    /// All that this process does not share with anybody, heap and store included, and guest memory
    /// not.
    outside: u64,
    /// Page tables of the whole process.
    tables: u64,
}

impl Vm {
    fn new(size: Pages, huge_pages: bool, store: Pages) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let before = Cost::now(None);
        let config = Config {
            regions: vec![PpnRange::new(Ppn(0), size)],
            uffd: Uffd::open().expect("this test needs /dev/userfaultfd or the right to call userfaultfd"),
            huge_pages,
            grant: size,
            store,
            swap: Some(space(size)),
        };
        let pmap = Pmap::new(config, Arc::new(Nobody)).unwrap();
        let stop = Event::new().unwrap();
        let (served, stopped) = (Arc::clone(&pmap), stop.clone());
        let server = std::thread::spawn(move || served.serve_faults(&stopped).unwrap());
        Self { pmap, stop, server: Some(server), before, _alone: alone }
    }

    fn put(&self, ppn: u64, content: &[u8]) {
        self.pmap.ram().write_slice(content, GuestAddress(ppn * PAGE_SIZE)).unwrap();
    }

    /// What the VM costs now.
    fn cost(&self) -> Cost {
        Cost::now(Some(&self.pmap)).since(self.before)
    }

    /// The same in words, as parts of its memory.
    #[expect(clippy::print_stdout, reason = "the figures are worth reading")]
    fn print(&self, what: &str) {
        let Cost { heap, outside, tables } = self.cost();
        let part = |bytes| self.part(bytes) * 100.0;
        println!(
            "{what}: heap {heap} bytes = {:.4} %, with what is beside the heap {outside} = {:.4} %, page tables {tables} = {:.4} %",
            part(heap),
            part(outside),
            part(tables)
        );
    }

    /// `bytes` as a part of guest memory.
    #[expect(clippy::cast_precision_loss, reason = "a part, to a few digits")]
    fn part(&self, bytes: u64) -> f64 {
        bytes as f64 / self.pmap.stats().size.bytes().0 as f64
    }

    /// Waits until the figures are so. A thread whose fault is served goes on before that is
    /// counted.
    fn wait(&self, so: impl Fn(&Stats) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !so(&self.pmap.stats()) {
            assert!(Instant::now() < end, "not within a minute: {:?}", self.pmap.stats());
            std::thread::yield_now();
        }
    }

    /// Takes all that the VM holds.
    fn take_all(&self) {
        self.wait(|stats| {
            self.pmap.page_out(SIZE);
            stats.held == stats.store
        });
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.stop.signal();
        if let Some(server) = self.server.take() {
            server.join().unwrap();
        }
    }
}

impl Cost {
    fn now(pmap: Option<&Arc<Pmap>>) -> Self {
        let guest = pmap.map_or(0..0, |pmap| {
            let (start, len) = pmap.place();
            start..start + len.0
        });
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let tables = status.lines().find_map(|line| kib(line, "VmPTE:")).unwrap();
        let mut outside = 0;
        let mut counts = false;
        for line in fs::read_to_string("/proc/self/smaps").unwrap().lines() {
            let start = line.split_once('-').and_then(|(start, _)| u64::from_str_radix(start, 16).ok());
            if let Some(start) = start {
                counts = !guest.contains(&start);
            } else if counts && let Some(bytes) = kib(line, "Anonymous:") {
                outside += bytes;
            }
        }
        Self { heap: allocated(), outside, tables }
    }

    fn since(self, before: Self) -> Self {
        Self {
            heap: self.heap.saturating_sub(before.heap),
            outside: self.outside.saturating_sub(before.outside),
            tables: self.tables.saturating_sub(before.tables),
        }
    }
}

/// The bytes that a line of `/proc` gives in KiB after `key`.
fn kib(line: &str, key: &str) -> Option<u64> {
    let value = line.strip_prefix(key)?.trim().strip_suffix(" kB")?;
    value.parse::<u64>().ok().map(|value| value << 10)
}

/// A file for all pages of a VM.
fn space(slots: Pages) -> SwapSpace {
    let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
    file.as_file().set_len(slots.bytes().0).unwrap();
    let mut options = File::options();
    options.read(true).write(true);
    let direct = options.clone().custom_flags(libc::O_DIRECT).open(file.path());
    SwapSpace { file: direct.or_else(|_| options.open(file.path())).unwrap().into(), slots, encrypt: true }
}

/// A page that does not shrink, another one for each `seed`.
fn noise(seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..PAGE_SIZE).map(|_| random.u8(1..)).collect()
}

#[test]
fn without_pressure_bookkeeping_is_next_to_nothing() {
    let vm = Vm::new(SIZE, true, Pages(SIZE.0 / 10));
    vm.print("4 GiB, nothing touched");
    let empty = vm.cost();
    assert!(vm.part(empty.heap) < CALM, "{empty:?}");
    assert!(vm.part(empty.outside) < CALM, "{empty:?}");
    // A large chunk has no more than an empty one: 1/16 of the VM shows it.
    for chunk in 0..CHUNKS / 16 {
        vm.put(chunk * CHUNK_PAGES, &[1]);
    }
    vm.wait(|stats| stats.chunks_large == CHUNKS / 16);
    vm.print("4 GiB, a chunk in 16 large");
    let large = vm.cost();
    let growth = large.heap.saturating_sub(empty.heap) * 16;
    assert!(vm.part(empty.heap + growth) < CALM, "{empty:?}, then {large:?}");
}

#[test]
fn with_every_chunk_small_bookkeeping_stays_within_half_a_percent() {
    let vm = Vm::new(SIZE, false, Pages(SIZE.0 / 10));
    for chunk in 0..CHUNKS {
        vm.put(chunk * CHUNK_PAGES, &noise(chunk));
    }
    vm.wait(|stats| stats.chunks_small == CHUNKS);
    vm.print("4 GiB, a page in each chunk touched");
    let resident = vm.cost();
    vm.take_all();
    vm.wait(|stats| stats.chunks_small == CHUNKS);
    vm.print("4 GiB, the same in the swap");
    let swapped = vm.cost();
    for cost in [resident, swapped] {
        assert!(vm.part(cost.heap) > 8.0 / 4096.0, "a table for each chunk: {cost:?}");
        assert!(vm.part(cost.heap.max(cost.outside)) < SMALL, "{cost:?}");
    }
}

/// Where all pages are elsewhere, what is in the store and what is in the swap add nothing that is
/// not charged.
#[test]
fn with_every_page_elsewhere_bookkeeping_stays_within_half_a_percent() {
    const PAGES: Pages = Pages(1 << 16);
    let vm = Vm::new(PAGES, false, Pages(PAGES.0 / 10));
    let fixed = vm.cost();
    for ppn in 0..PAGES.0 {
        let page = if ppn % 2 == 0 { noise(ppn) } else { ppn.to_ne_bytes().repeat(512) };
        vm.put(ppn, &page);
    }
    vm.take_all();
    let stats = vm.pmap.stats();
    vm.print("256 MiB, half of it compressed and half in the swap");
    assert!(stats.compressed > Pages::ZERO && stats.compressed + stats.swapped == PAGES, "{stats:?}");
    let grown = vm.cost().since(fixed);
    assert!(vm.part(grown.heap) < SMALL, "{grown:?}");
    let buffers = 384 * PAGE_SIZE;
    let uncharged = grown.outside.saturating_sub(stats.store.bytes().0 + buffers);
    assert!(vm.part(uncharged) < SMALL, "{grown:?}, of which the store is charged {:?}", stats.store);
}
