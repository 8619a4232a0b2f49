//! Verified counters: host threads, a vCPU and a device each own pages in every chunk, and every
//! word of a page is a counter of its owner. A visit reads each word of a page, which must hold
//! what the last visit wrote, and writes the next value. All transitions run against it as fast as
//! they can. A write that was lost shows at the next visit. Another VM does the same, and both
//! share equal pages, of which there are many, with each other and among their own.
//!
//! `PLIMSOLL_STRESS_WRITES` sets how many writes are verified (default 20 million, seconds). `cargo
//! xtask test --only counters` verifies 10^9; a soak of 10^11, some half an hour:
//! `PLIMSOLL_STRESS_WRITES=100000000000 PLIMSOLL_STRESS_REPEATS=100 cargo test -p plimsoll-pmap
//! --release counters::no_write`. `PLIMSOLL_STRESS_REPEATS` is how often a page is visited before
//! the next one (default 8): with more, more writes are verified for each transition.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use plimsoll_units::{Bytes as Size, PAGE_SIZE, Pages, Ppn};
use vm_memory::{Bytes, GuestAddress};

use super::direct_io::Disk;
use super::frames::Frames;
use super::harness::{Served, address, paged};
use super::vcpu::{Guest, Words};
use crate::address::PAGE;
use crate::inject::pin;
use crate::mutation::Mutation;
use crate::sync::lock;
use crate::{Intent, PpnRange, Release, Sampler, ScanOrder};

const CHUNKS: u64 = 12;
/// Pages that the VM may hold: too few for all, so that faults wait.
const GRANT: u64 = CHUNKS * 512 * 3 / 4;
const STORE: u64 = 300;
const SLOTS: u64 = 5000;
/// Words of a page.
const WORDS: u64 = 512;
/// Visits to a page before the next one: transitions come in between, and more writes are verified
/// for each fault.
fn repeats() -> usize {
    let repeats = std::env::var("PLIMSOLL_STRESS_REPEATS").ok();
    repeats.map_or(8, |repeats| repeats.parse().expect("PLIMSOLL_STRESS_REPEATS is a number"))
}
/// Longest time without a visit.
const STUCK: Duration = Duration::from_secs(30);
/// The same where one that waits for ever is expected.
const STUCK_EXPECTED: Duration = Duration::from_secs(3);

/// Which thread owns which pages of every chunk.
const VCPU: std::ops::Range<u64> = 0..128;
const THREADS: [std::ops::Range<u64>; 2] = [128..288, 288..448];
const DEVICE: std::ops::Range<u64> = 448..512;
/// Chunks of the other VM.
const OTHER_CHUNKS: u64 = 4;
/// How long the scanner looks before it does something else.
const GLANCE: Duration = Duration::from_millis(5);
/// Writes of which some must have been to shared pages.
const MANY: u64 = 10_000_000;

/// What the words of a page hold after `visits`: as large as can be where that is odd, and next to
/// nothing otherwise. A page never visited, or given back, holds zeros.
fn words(visits: u64) -> Words {
    let step = if visits.is_multiple_of(2) { 0 } else { 0x9E37_79B9_7F4A_7C15 };
    Words { first: visits, step }
}

struct World<'a> {
    vm: Served,
    /// Which of those that share.
    id: usize,
    chunks: u64,
    all: &'a All,
}

/// What the VMs have in common.
struct All {
    frames: Arc<Frames>,
    /// Writes that were verified.
    verified: AtomicU64,
    over: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl All {
    fn fail(&self, what: String) {
        lock(&self.failure).get_or_insert(what);
        self.over.store(true, Ordering::SeqCst);
    }
}

impl<'a> World<'a> {
    fn new(all: &'a All, id: usize, chunks: u64, grant: u64, mutation: Option<Mutation>) -> Self {
        let vm = paged(chunks + 1, grant, true, STORE, SLOTS);
        vm.pmap.mutate(mutation);
        all.frames.join(id, &vm);
        Self { vm, id, chunks, all }
    }

    fn fail(&self, what: String) {
        self.all.fail(format!("VM {}: {what}", self.id));
    }

    fn is_over(&self) -> bool {
        self.all.over.load(Ordering::SeqCst)
    }

    fn verified(&self, words: u64) {
        self.all.verified.fetch_add(words, Ordering::Relaxed);
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
fn thread(world: &World<'_>, slots: std::ops::Range<u64>) {
    let width = slots.end - slots.start;
    let mut visits = vec![0; usize::try_from(world.chunks * width).unwrap()];
    let repeats = repeats();
    while !world.is_over() {
        let at = fastrand::usize(..visits.len());
        let ppn = at as u64 / width * 512 + slots.start + at as u64 % width;
        if fastrand::u32(..500) == 0 {
            world.vm.pmap.release(&[PpnRange::page(Ppn(ppn))], Release::Reported);
            visits[at] = 0;
        }
        for _ in 0..repeats {
            if !world.check(ppn, words(visits[at])) {
                return world.fail(format!("page {ppn} has lost what visit {} wrote", visits[at]));
            }
            visits[at] += 1;
            world.fill(ppn, words(visits[at]));
        }
    }
}

/// A CPU of the guest.
fn vcpu(world: &World<'_>, mut guest: Guest) {
    let mut visits = vec![0; usize::try_from(VCPU.end).unwrap()];
    let repeats = repeats();
    while !world.is_over() {
        // A page of each chunk at a time.
        let slot = fastrand::usize(..visits.len());
        for _ in 0..repeats {
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
fn device(world: &World<'_>, asynchronous: bool) {
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
        let guard = pin(&world.vm.pmap, &range, Intent::Use);
        ppns.clone().for_each(|ppn| world.fill(ppn, words(visit)));
        disk.write(&guard).unwrap();
        drop(guard);
        // Whatever becomes of the pages meanwhile, the disk overwrites all of it.
        ppns.clone().for_each(|ppn| world.fill(ppn, words(0)));
        let guard = pin(&world.vm.pmap, &range, Intent::Overwrite);
        disk.read(&guard).unwrap();
        drop(guard);
        if let Some(ppn) = ppns.into_iter().find(|&ppn| !world.check(ppn, words(visit))) {
            return world.fail(format!("the disk's write to page {ppn} is lost"));
        }
    }
}

/// Takes pages away, brings chunks back together, puts them aside, and lowers and raises the grant.
fn pager(world: &World<'_>) {
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

/// Shares what is the same, and now and then nothing any more.
fn scanner(world: &World<'_>) {
    let pmap = &world.vm.pmap;
    while !world.is_over() {
        pmap.scan(ScanOrder { break_large: true }, GLANCE);
        world.all.frames.deliver(world.id, &world.vm);
        if fastrand::u32(..200) == 0 && world.all.frames.leave(world.id, &world.vm) {
            world.all.frames.join(world.id, &world.vm);
        }
    }
}

fn auditor(world: &World<'_>) {
    while !world.is_over() {
        std::thread::sleep(Duration::from_millis(50));
        if let Err(found) = world.vm.pmap.audit() {
            return world.fail(format!("{}", found[0]));
        }
    }
}

/// Verifies `writes` writes, or finds out what is wrong.
fn run(writes: u64, mutation: Option<Mutation>) -> Result<(), String> {
    let (over, failure) = (AtomicBool::new(false), Mutex::new(None));
    let all = &All { frames: Frames::new(), verified: AtomicU64::new(0), over, failure };
    let world = &World::new(all, 0, CHUNKS, GRANT, mutation);
    let other = &World::new(all, 1, OTHER_CHUNKS, OTHER_CHUNKS * 512, mutation);
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        if let Some(guest) = Guest::new(&world.vm.pmap) {
            threads.push(scope.spawn(move || vcpu(world, guest)));
        }
        THREADS.into_iter().for_each(|slots| threads.push(scope.spawn(move || thread(world, slots))));
        [false, true].into_iter().for_each(|how| threads.push(scope.spawn(move || device(world, how))));
        threads.push(scope.spawn(move || thread(other, 0..512)));
        for world in [world, other] {
            threads.push(scope.spawn(move || pager(world)));
            threads.push(scope.spawn(move || scanner(world)));
            threads.push(scope.spawn(move || auditor(world)));
        }
        let finished = || threads.iter().all(|thread| thread.is_finished());
        watch(all, &[world, other], writes, mutation.is_some(), finished);
    });
    lock(&all.failure).take().map_or(Ok(()), Err)?;
    all.frames.check(&[&world.vm, &other.vm]);
    for world in [world, other] {
        let sharing = world.vm.stats().sharing;
        assert!(writes < MANY || sharing.merged.min(sharing.broken).min(sharing.zeroed) > 0, "{sharing:?}");
    }
    Ok(())
}

/// Ends it when enough is verified, and tells how far it has come; ends it also when nothing moves.
fn watch(all: &All, worlds: &[&World<'_>], writes: u64, expected: bool, finished: impl Fn() -> bool) {
    let begin = Instant::now();
    let (mut last, mut told) = ((0, begin), begin);
    while !finished() {
        std::thread::sleep(Duration::from_millis(10));
        let verified = all.verified.load(Ordering::Relaxed);
        if verified >= writes {
            all.over.store(true, Ordering::SeqCst);
        }
        if verified != last.0 {
            last = (verified, Instant::now());
        }
        if last.1.elapsed() > if expected { STUCK_EXPECTED } else { STUCK } {
            all.fail("a thread waits for a page that is there".to_owned());
            for pmap in worlds.iter().map(|world| &world.vm.pmap) {
                pmap.mutate(None);
                pmap.add_grant(Pages(CHUNKS * 512));
                pmap.vm().memory.wake_all().unwrap();
            }
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
    assert!(failure.contains("lost") || failure.contains("write-protected"), "{failure}");
}

#[test]
fn copies_in_the_swap_that_go_stale_are_noticed() {
    let failure = noticed(Mutation::StaleCopy);
    assert!(failure.contains("lost") || failure.contains("write-protected"), "{failure}");
}

#[test]
fn sharing_pages_that_were_not_compared_is_noticed() {
    let failure = noticed(Mutation::BlindSharing);
    assert!(failure.contains("lost"), "{failure}");
}

#[test]
fn giving_back_frames_that_are_still_seen_is_noticed() {
    let failure = noticed(Mutation::EarlyDeparture);
    assert!(failure.contains("lost"), "{failure}");
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
