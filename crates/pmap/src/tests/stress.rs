//! Everything at once: writers that verify what they wrote, a balloon, devices, a guest that misbehaves, grants that
//! come and go, a sampler and an auditor; then a reset, and again.
//!
//! `PLIMSOLL_STRESS_OPS` sets how many operations each writer does (default 6000, seconds); a soak takes millions:
//! `PLIMSOLL_STRESS_OPS=20000000 cargo test -p plimsoll-pmap --release stress -- --test-threads 1`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use plimsoll_units::{Bytes as Size, PAGE_SIZE, Pages, Ppn};
use vm_memory::Bytes;

use super::direct_io::Disk;
use super::harness::{Served, address, paged};
use crate::inject::pin;
use crate::mutation::Mutation;
use crate::sync::lock;
use crate::{Inflation, Intent, PpnRange, Release, Sampler};

/// Longest time without any progress. A queued fault is served within milliseconds; a lost wake-up waits for ever.
const STUCK: Duration = Duration::from_secs(20);
/// The same where a lost wake-up is expected: too short would only find early what is there.
const STUCK_EXPECTED: Duration = Duration::from_secs(2);
/// Chunks of writers, by turns page by page and chunk by chunk.
const WRITERS: u64 = 2;
const SHARED_CHUNKS: u64 = 4;
const OWN_CHUNKS: u64 = 4;
/// A chunk for each device.
const DEVICES: u64 = 2;
const FIRST_DEVICE_CHUNK: u64 = SHARED_CHUNKS + OWN_CHUNKS;
/// Samples of a period: about half of the chunks that there are.
const SAMPLES: u32 = 8;
/// Chunks that are written and given back at the same time.
const SCRATCH_CHUNKS: u64 = 2;
const FIRST_SCRATCH_CHUNK: u64 = FIRST_DEVICE_CHUNK + DEVICES;
/// The last one is above the hole, and stays untouched.
const CHUNKS: u64 = FIRST_SCRATCH_CHUNK + SCRATCH_CHUNKS + 1;

/// Machine pages for compressed pages, so few that the oldest have to leave for the swap.
const STORE: u64 = 150;
/// Slots of the swap, fewer than there are pages, so that copies of resident pages have to be given up.
const SLOTS: u64 = 3500;

const PAGE: usize = 4096;
type Page = [u8; PAGE];

/// What the threads of one round share.
struct World {
    vm: Served,
    progress: AtomicU64,
    /// Ends the threads that have no work of their own.
    done: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl World {
    fn fail(&self, what: String) {
        lock(&self.failure).get_or_insert(what);
        self.done.store(true, Ordering::SeqCst);
    }

    fn over(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    fn advance(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }
}

/// xorshift64: reproducible, and good enough to mix operations.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).unwrap()
    }
}

/// The content of a page in a generation. Generation 0 is zeros: never written, or given back. Of the others every second
/// shrinks well, and the rest does not.
fn content(ppn: u64, generation: u64) -> Page {
    let mut page = [0; PAGE];
    if generation > 0 {
        let stir = if generation.is_multiple_of(2) { 0 } else { 0x9E37_79B9_7F4A_7C15 };
        for (i, word) in page.chunks_exact_mut(8).enumerate() {
            let value = (generation << 32 | ppn) ^ (i as u64).wrapping_mul(stir);
            word.copy_from_slice(&value.to_ne_bytes());
        }
    }
    page
}

fn put(world: &World, ppn: u64, generation: u64) {
    world.vm.pmap.ram().write_slice(&content(ppn, generation), address(ppn)).unwrap();
}

fn holds(world: &World, ppn: u64, generation: u64) -> bool {
    let mut page = [0; PAGE];
    world.vm.pmap.ram().read_slice(&mut page, address(ppn)).unwrap();
    page == content(ppn, generation)
}

/// Pages that a writer gives up: to the balloon, or as free.
struct Given {
    writer: usize,
    ppns: Vec<u64>,
    how: Release,
}

/// Owns pages, writes generations to them, verifies them, gives some up and gets them back empty.
fn writer(world: &World, id: u64, ops: u64, give: &Sender<Given>, returned: &Receiver<Vec<u64>>, seed: u64) {
    let mut random = Random(seed);
    let own_chunk = |chunk: u64| chunk >= SHARED_CHUNKS && chunk % WRITERS == id;
    let mine = |ppn: &u64| own_chunk(ppn / 512) || (ppn / 512 < SHARED_CHUNKS && ppn % WRITERS == id);
    let mut pages: Vec<(u64, u64)> = (0..FIRST_DEVICE_CHUNK * 512).filter(mine).map(|ppn| (ppn, 0)).collect();
    let mut generation = 0;
    for _ in 0..ops {
        if world.over() {
            return;
        }
        world.advance();
        pages.extend(returned.try_iter().flatten().map(|ppn| (ppn, 0)));
        let Some(at) = (!pages.is_empty()).then(|| random.index(pages.len())) else {
            continue;
        };
        match random.below(16) {
            0 => {
                let how = if random.below(2) == 0 { Release::Ballooned } else { Release::Reported };
                let chunk = pages[at].0 / 512;
                let whole = own_chunk(chunk) && random.below(2) == 0;
                let last = pages[at].0 + random.below(64);
                let first = pages[at].0;
                let chosen =
                    |ppn: u64| if whole { ppn / 512 == chunk } else { (first..=last).contains(&ppn) };
                let ppns = pages.extract_if(.., |(ppn, _)| chosen(*ppn)).map(|(ppn, _)| ppn).collect();
                give.send(Given { writer: usize::try_from(id).unwrap(), ppns, how }).unwrap();
            }
            1..=7 => {
                generation += 1;
                put(world, pages[at].0, generation);
                pages[at].1 = generation;
            }
            _ => {
                let (ppn, generation) = pages[at];
                if !holds(world, ppn, generation) {
                    return world.fail(format!("page {ppn} is not in generation {generation}"));
                }
            }
        }
    }
}

/// An honest balloon driver and device: releases what was given up, in any order, and later hands it back.
fn balloon(world: &World, given: &Receiver<Given>, give_back: &[Sender<Vec<u64>>], seed: u64) {
    let mut random = Random(seed);
    let mut inflation = Inflation::new(world.vm.pmap.clone());
    let mut out: Vec<Given> = Vec::new();
    while let Ok(mut next) = given.recv() {
        for i in (1..next.ppns.len()).rev() {
            next.ppns.swap(i, random.index(i + 1));
        }
        match next.how {
            Release::Ballooned => {
                for some in next.ppns.chunks(256) {
                    inflation.inflate(&some.iter().copied().map(Ppn).collect::<Vec<_>>());
                }
            }
            Release::Reported => {
                let ranges: Vec<_> = next.ppns.iter().map(|&ppn| PpnRange::page(Ppn(ppn))).collect();
                world.vm.pmap.release(&ranges, Release::Reported);
            }
        }
        out.push(next);
        if random.below(4) > 0 {
            continue;
        }
        inflation.flush();
        for Given { writer, ppns, how } in out.drain(..) {
            if how == Release::Ballooned {
                inflation.deflate(&ppns.iter().copied().map(Ppn).collect::<Vec<_>>());
            }
            // A writer that has finished its work does not want them back.
            give_back[writer].send(ppns).ok();
        }
    }
}

/// Writes pinned memory to a file, clears it and reads it back, while `rude` gives the same pages back.
fn device(world: &World, id: u64, seed: u64) {
    let (mut random, mut disk) = (Random(seed), Disk::new(id == 0));
    let first = (FIRST_DEVICE_CHUNK + id) * 512;
    for generation in 1.. {
        if world.over() {
            return;
        }
        let runs: Vec<_> = (0..1 + random.below(3))
            .map(|i| (first + i * 170 + random.below(100), 1 + random.below(60)))
            .collect();
        let ranges: Vec<_> =
            runs.iter().map(|&(ppn, pages)| (address(ppn), Size(pages * PAGE_SIZE))).collect();
        let guard = pin(&world.vm.pmap, &ranges, Intent::Use);
        let ppns = || runs.iter().flat_map(|&(ppn, pages)| ppn..ppn + pages);
        ppns().for_each(|ppn| put(world, ppn, generation));
        let written = disk.write(&guard).unwrap();
        ppns().for_each(|ppn| put(world, ppn, 0));
        let read = disk.read(&guard).unwrap();
        let bytes = ppns().count() * PAGE;
        if (written, read) != (bytes, bytes) {
            return world.fail(format!("device {id}: {written} bytes written, {read} read of {bytes}"));
        }
        if let Some(ppn) = ppns().find(|&ppn| !holds(world, ppn, generation)) {
            return world.fail(format!("device {id}: what it read into page {ppn} is lost"));
        }
        world.advance();
    }
}

/// A guest that reports pages as free while devices, or its own CPUs, use them.
fn rude(world: &World, seed: u64) {
    let mut random = Random(seed);
    while !world.over() {
        let chunk = FIRST_DEVICE_CHUNK + random.below(DEVICES + SCRATCH_CHUNKS);
        let range = match random.below(2) {
            0 => PpnRange::new(Ppn(chunk * 512), Pages::CHUNK),
            _ => PpnRange::new(Ppn(chunk * 512 + random.below(500)), Pages(1 + random.below(100))),
        };
        world.vm.pmap.release(&[range], Release::Reported);
        std::thread::yield_now();
    }
}

/// Writes without caring what becomes of it.
fn scribbler(world: &World, seed: u64) {
    let mut random = Random(seed);
    while !world.over() {
        let ppn = FIRST_SCRATCH_CHUNK * 512 + random.below(SCRATCH_CHUNKS * 512);
        world.vm.write(ppn, 1);
    }
}

/// Grants what is asked for bit by bit, sometimes nothing, and takes back what it can.
fn granter(world: &World, running: &AtomicBool, seed: u64) {
    let mut random = Random(seed);
    let pmap = &world.vm.pmap;
    let mut ledger = pmap.stats().grant;
    while running.load(Ordering::SeqCst) {
        let wanted = world.vm.source.wanted();
        if wanted > Pages::ZERO {
            let answer = match random.below(4) {
                0 => Pages::ZERO,
                1 => Pages(1 + random.below(wanted.0)),
                _ => wanted,
            };
            pmap.add_grant(answer);
            ledger += answer;
        } else if random.below(8) == 0 {
            ledger -= pmap.return_grant(Pages(random.below(600)));
        }
        if pmap.stats().grant != ledger {
            return world.fail(format!("{ledger:?} were granted: {:?}", pmap.stats()));
        }
        std::thread::yield_now();
    }
}

/// Puts chunks aside all the time.
fn sampler(world: &World, seed: u64) {
    let mut random = Random(seed);
    let mut sampler = Sampler::new(world.vm.pmap.clone(), SAMPLES);
    while !world.over() {
        sampler.begin();
        (0..random.below(4)).for_each(|_| std::thread::yield_now());
        sampler.end();
        let seen = sampler.seen();
        if seen.chunks.touched > seen.chunks.sampled || seen.chunks.sampled > seen.chunks.population {
            return world.fail(format!("{seen:?}"));
        }
    }
}

/// Takes pages away, and makes chunks large again, as fast as it can.
fn pager(world: &World, seed: u64) {
    let mut random = Random(seed);
    while !world.over() {
        match random.below(8) {
            0 => drop(world.vm.pmap.promote(2)),
            _ => drop(world.vm.pmap.page_out(Pages(1 + random.below(600)))),
        }
        std::thread::yield_now();
    }
}

fn auditor(world: &World) {
    while !world.over() {
        if let Err(found) = world.vm.pmap.audit() {
            return world.fail(format!("{}", found[0]));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs everything for `ops` operations of each writer; returns what went wrong.
fn round(world: &World, ops: u64, seed: u64) -> Result<(), String> {
    world.done.store(false, Ordering::SeqCst);
    let granting = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let (give, given) = channel();
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..WRITERS).map(|_| channel()).unzip();
        let mut threads = Vec::new();
        let writers: Vec<_> = receivers
            .into_iter()
            .zip(0..)
            .map(|(receiver, id)| {
                let give = give.clone();
                scope.spawn(move || writer(world, id, ops, &give, &receiver, seed + id))
            })
            .collect();
        drop(give);
        threads.push(scope.spawn(move || balloon(world, &given, &senders, seed + 10)));
        (0..DEVICES).for_each(|id| threads.push(scope.spawn(move || device(world, id, seed + 20 + id))));
        threads.push(scope.spawn(move || rude(world, seed + 30)));
        threads.push(scope.spawn(move || scribbler(world, seed + 40)));
        threads.push(scope.spawn(move || sampler(world, seed + 60)));
        threads.push(scope.spawn(move || pager(world, seed + 70)));
        threads.push(scope.spawn(move || auditor(world)));
        let granter = scope.spawn(|| granter(world, &granting, seed + 50));
        watch(world, || writers.iter().all(|writer| writer.is_finished()));
        world.done.store(true, Ordering::SeqCst);
        watch(world, || threads.iter().chain(&writers).all(|thread| thread.is_finished()));
        granting.store(false, Ordering::SeqCst);
        granter.join().unwrap();
    });
    lock(&world.failure).take().map_or(Ok(()), Err)
}

/// Waits until `finished`. Where nothing moves, records that as the failure, and mends the VM so that the threads
/// can end.
fn watch(world: &World, finished: impl Fn() -> bool) {
    let expected = world.vm.pmap.mutation() == Some(Mutation::NoWake);
    let stuck = if expected { STUCK_EXPECTED } else { STUCK };
    let mut last = (world.progress.load(Ordering::Relaxed), Instant::now());
    while !finished() {
        let progress = world.progress.load(Ordering::Relaxed);
        if progress != last.0 {
            last = (progress, Instant::now());
        }
        if last.1.elapsed() > stuck {
            world.fail("somebody waits for a page that is there".to_owned());
            world.vm.pmap.mutate(None);
            world.vm.pmap.vm().memory.wake_all().unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn stress(huge_pages: bool, mutation: Option<Mutation>) -> Result<(), String> {
    let vm = paged(CHUNKS, 100, huge_pages, STORE, SLOTS);
    vm.pmap.mutate(mutation);
    let world = Arc::new(World {
        vm,
        progress: AtomicU64::new(0),
        done: AtomicBool::new(false),
        failure: Mutex::new(None),
    });
    let ops = std::env::var("PLIMSOLL_STRESS_OPS").ok().and_then(|ops| ops.parse().ok()).unwrap_or(6000);
    for seed in 1..=3 {
        round(&world, ops, seed * 0x1234_5678_9ABC_DEF1)?;
        world.vm.pmap.reset().map_err(|error| format!("reset: {error}"))?;
        let stats = world.vm.stats();
        world.vm.settle();
        let left = [stats.held, stats.ballooned, stats.compressed, stats.swapped, stats.store];
        if left != [Pages::ZERO; 5] || world.vm.free_slots() != Pages(SLOTS) {
            return Err(format!(
                "after a reset: {stats:?}, {:?} of {SLOTS} slots free",
                world.vm.free_slots()
            ));
        }
        let troubles = world.vm.source.troubles();
        if !troubles.is_empty() {
            return Err(format!("the swap: {troubles:?}"));
        }
        world.vm.pmap.audit().map_err(|found| format!("after a reset: {}", found[0]))?;
    }
    Ok(())
}

#[test]
fn nothing_is_lost_under_stress() {
    stress(true, None).unwrap();
}

#[test]
fn nothing_is_lost_under_stress_without_huge_pages() {
    stress(false, None).unwrap();
}

/// Runs the stress with a defect until it is noticed.
fn noticed(mutation: Mutation) -> String {
    (0..20)
        .find_map(|_| stress(true, Some(mutation)).err())
        .unwrap_or_else(|| panic!("{mutation:?} went unnoticed"))
}

#[test]
fn the_stress_notices_a_chunk_that_is_not_charged() {
    let failure = noticed(Mutation::UnchargedLarge);
    assert!(failure.contains("counted as held"), "{failure}");
}

#[test]
fn the_stress_notices_io_on_unlocked_pages() {
    let failure = noticed(Mutation::UnlockedIo);
    assert!(failure.contains("device"), "{failure}");
}

#[test]
fn the_stress_notices_a_chunk_given_back_before_it_is_armed() {
    let failure = noticed(Mutation::LateArming);
    assert!(failure.contains("should be absent") || failure.contains("generation"), "{failure}");
}

#[test]
fn the_stress_notices_a_missing_wake() {
    let failure = noticed(Mutation::NoWake);
    assert!(failure.contains("waits for a page"), "{failure}");
}

#[test]
fn the_stress_notices_a_chunk_given_back_while_it_is_aside() {
    let failure = noticed(Mutation::StrandedAside);
    assert!(failure.contains("no chunk's") || failure.contains("generation"), "{failure}");
}
