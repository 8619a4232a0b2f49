//! Verified counters: host threads, a vCPU and a device each own pages in every chunk, and every word of a page is a counter of
//! its owner. A visit reads each word of a page, which must hold what the last visit wrote, and writes the next value. All
//! transitions run against it as fast as they can. A write that was lost shows at the next visit.
//!
//! `PLIMSOLL_STRESS_WRITES` sets how many writes are verified (default 20 million, seconds). `cargo xtask test --only counters`
//! verifies 10^9; a soak of 10^11: `PLIMSOLL_STRESS_WRITES=100000000000 cargo test -p plimsoll-pmap --release counters::no_write`.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use plimsoll_units::{Bytes as Size, PAGE_SIZE, Pages, Ppn};
use vm_memory::{Bytes, GuestAddress};

use super::direct_io::Disk;
use super::harness::{Served, address, paged};
use super::vcpu::{Guest, Words};
use crate::chunk::lock;
use crate::host_range::PAGE;
use crate::mutation::Mutation;
use crate::{Intent, PpnRange, Release, Sampler};

const CHUNKS: u64 = 12;
/// Pages that the VM may hold: too few for all, so that faults wait.
const GRANT: u64 = CHUNKS * 512 * 3 / 4;
const STORE: u64 = 300;
const SLOTS: u64 = 5000;
/// Words of a page.
const WORDS: u64 = 512;
/// Visits to a page before the next one: transitions come in between, and more writes are verified for each fault.
const REPEATS: usize = 8;
/// Longest time without a visit.
const STUCK: Duration = Duration::from_secs(30);
/// The same where one that waits for ever is expected.
const STUCK_EXPECTED: Duration = Duration::from_secs(3);

/// Who owns which pages of every chunk.
const VCPU: std::ops::Range<u64> = 0..128;
const THREADS: [std::ops::Range<u64>; 2] = [128..288, 288..448];
const DEVICE: std::ops::Range<u64> = 448..512;

/// What the words of a page hold after `visits`: as large as can be where that is odd, and next to nothing otherwise. A page
/// never visited, or given back, holds zeros.
fn words(visits: u64) -> Words {
    let step = if visits.is_multiple_of(2) { 0 } else { 0x9E37_79B9_7F4A_7C15 };
    Words { first: visits, step }
}

struct World {
    vm: Served,
    /// Writes that were verified.
    verified: AtomicU64,
    over: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl World {
    fn fail(&self, what: String) {
        lock(&self.failure).get_or_insert(what);
        self.over.store(true, Ordering::SeqCst);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn verified(&self, words: u64) {
        self.verified.fetch_add(words, Ordering::Relaxed);
    }

    /// Reads page `ppn`: true where each word holds what it should.
    fn check(&self, ppn: u64, should: Words) -> bool {
        let mut page = [0; PAGE];
        self.vm.pmap.ram().read_slice(&mut page, address(ppn)).unwrap();
        self.verified(WORDS);
        page == content(should)
    }

    /// Writes page `ppn`, in halves: one must not take the other with it.
    fn fill(&self, ppn: u64, words: Words) {
        let page = content(words);
        let (first, second) = page.split_at(PAGE / 2);
        let ram = self.vm.pmap.ram();
        ram.write_slice(first, address(ppn)).unwrap();
        ram.write_slice(second, GuestAddress(address(ppn).0 + second.len() as u64)).unwrap();
    }
}

fn content(words: Words) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    let mut value = words.first;
    for word in page.as_chunks_mut().0 {
        *word = value.to_ne_bytes();
        value = value.wrapping_add(words.step);
    }
    page
}

/// A CPU of the host. Gives pages back now and then, which are zeros afterwards.
fn thread(world: &World, slots: std::ops::Range<u64>) {
    let width = slots.end - slots.start;
    let mut visits = vec![0; usize::try_from(CHUNKS * width).unwrap()];
    while !world.is_over() {
        let at = fastrand::usize(..visits.len());
        let ppn = at as u64 / width * 512 + slots.start + at as u64 % width;
        if fastrand::u32(..500) == 0 {
            world.vm.pmap.release(&[PpnRange::page(Ppn(ppn))], Release::Reported);
            visits[at] = 0;
        }
        for _ in 0..REPEATS {
            if !world.check(ppn, words(visits[at])) {
                return world.fail(format!("page {ppn} has lost what visit {} wrote", visits[at]));
            }
            visits[at] += 1;
            world.fill(ppn, words(visits[at]));
        }
    }
}

/// A CPU of the guest.
fn vcpu(world: &World, mut guest: Guest) {
    let mut visits = vec![0; usize::try_from(VCPU.end).unwrap()];
    while !world.is_over() {
        // A page of each chunk at a time.
        let slot = fastrand::usize(..visits.len());
        for _ in 0..REPEATS {
            let (old, new) = (words(visits[slot]), words(visits[slot] + 1));
            let lost = guest.count(slot as u64, CHUNKS, 512, old, new);
            world.verified(CHUNKS * WORDS);
            if lost > 0 {
                return world.fail(format!("the vCPU found {lost} words lost in pages {slot} of the chunks"));
            }
            visits[slot] += 1;
        }
    }
}

/// A disk: what it reads comes from what was written to it, both behind the CPU's back.
fn device(world: &World, asynchronous: bool) {
    let mut disk = Disk::new(asynchronous);
    let half = (DEVICE.end - DEVICE.start) / 2;
    let first = DEVICE.start + if asynchronous { half } else { 0 };
    for visit in 1.. {
        if world.is_over() {
            return;
        }
        let pages = 1 + fastrand::u64(..8);
        let start = fastrand::u64(..CHUNKS) * 512 + first + fastrand::u64(..half - pages);
        let range = [(address(start), Size(pages * PAGE_SIZE))];
        let ppns = start..start + pages;
        let guard = world.vm.pmap.pin(&range, Intent::Use).unwrap();
        ppns.clone().for_each(|ppn| world.fill(ppn, words(visit)));
        disk.write(&guard).unwrap();
        drop(guard);
        // Whatever becomes of the pages meanwhile, the disk overwrites all of it.
        ppns.clone().for_each(|ppn| world.fill(ppn, words(0)));
        let guard = world.vm.pmap.pin(&range, Intent::Overwrite).unwrap();
        disk.read(&guard).unwrap();
        drop(guard);
        if let Some(ppn) = ppns.into_iter().find(|&ppn| !world.check(ppn, words(visit))) {
            return world.fail(format!("the disk's write to page {ppn} is lost"));
        }
    }
}

/// Takes pages away, brings chunks back together, puts them aside, and lowers and raises the grant.
fn pager(world: &World) {
    let pmap = &world.vm.pmap;
    let mut sampler = Sampler::new(Arc::clone(pmap), 20);
    while !world.is_over() {
        match fastrand::u32(..12) {
            0 => drop(pmap.promote(2)),
            1 => sampler.begin(),
            2 => sampler.end(),
            3 => pmap.add_grant(pmap.return_grant(Pages(fastrand::u64(..600)))),
            _ => drop(pmap.page_out(Pages(1 + fastrand::u64(..600)))),
        }
    }
}

fn auditor(world: &World) {
    while !world.is_over() {
        std::thread::sleep(Duration::from_millis(50));
        if let Err(found) = world.vm.pmap.audit() {
            return world.fail(format!("{}", found[0]));
        }
    }
}

/// Verifies `writes` writes, or finds out what is wrong.
fn run(writes: u64, mutation: Option<Mutation>) -> Result<(), String> {
    let vm = paged(CHUNKS + 1, GRANT, true, STORE, SLOTS);
    vm.pmap.mutate(mutation);
    let (over, failure) = (AtomicBool::new(false), Mutex::new(None));
    let world = &World { vm, verified: AtomicU64::new(0), over, failure };
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        if let Some(guest) = Guest::new(&world.vm.pmap) {
            threads.push(scope.spawn(move || vcpu(world, guest)));
        }
        THREADS.into_iter().for_each(|slots| threads.push(scope.spawn(move || thread(world, slots))));
        [false, true].into_iter().for_each(|how| threads.push(scope.spawn(move || device(world, how))));
        threads.push(scope.spawn(move || pager(world)));
        threads.push(scope.spawn(move || auditor(world)));
        watch(world, writes, mutation.is_some(), || threads.iter().all(|thread| thread.is_finished()));
    });
    lock(&world.failure).take().map_or(Ok(()), Err)
}

/// Ends it when enough is verified, and tells how far it has come; ends it also when nothing moves.
fn watch(world: &World, writes: u64, expected: bool, finished: impl Fn() -> bool) {
    let begin = Instant::now();
    let (mut last, mut told) = ((0, begin), begin);
    while !finished() {
        std::thread::sleep(Duration::from_millis(10));
        let verified = world.verified.load(Ordering::Relaxed);
        if verified >= writes {
            world.over.store(true, Ordering::SeqCst);
        }
        if verified != last.0 {
            last = (verified, Instant::now());
        }
        if last.1.elapsed() > if expected { STUCK_EXPECTED } else { STUCK } {
            world.fail("somebody waits for a page that is there".to_owned());
            world.vm.pmap.mutate(None);
            world.vm.pmap.add_grant(Pages(CHUNKS * 512));
            world.vm.pmap.uffd.wake(world.vm.pmap.mapping.range(0, world.vm.pmap.mapping.len())).unwrap();
        }
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            let line = format!("{verified} of {writes} writes verified in {} s\n", begin.elapsed().as_secs());
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
    }
}

#[test]
fn no_write_is_lost() {
    let writes = std::env::var("PLIMSOLL_STRESS_WRITES").ok().map(|writes| writes.parse().unwrap());
    run(writes.unwrap_or(20_000_000), None).unwrap();
}

/// Runs with a defect until that is noticed.
fn noticed(mutation: Mutation) -> String {
    run(u64::MAX, Some(mutation)).unwrap_err()
}

#[test]
fn pages_that_leave_without_protection_are_noticed() {
    let failure = noticed(Mutation::NoProtection);
    assert!(failure.contains("lost"), "{failure}");
}

#[test]
fn copies_in_the_swap_that_go_stale_are_noticed() {
    let failure = noticed(Mutation::StaleCopy);
    assert!(failure.contains("lost") || failure.contains("write-protected"), "{failure}");
}

#[test]
fn io_on_pages_that_are_not_locked_is_noticed() {
    let failure = noticed(Mutation::UnlockedIo);
    assert!(failure.contains("the disk's write"), "{failure}");
}

#[test]
fn a_missing_wake_is_noticed() {
    let failure = noticed(Mutation::NoWake);
    assert!(failure.contains("waits for a page"), "{failure}");
}
