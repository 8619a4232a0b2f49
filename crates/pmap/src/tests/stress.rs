//! Everything at once: writers that verify what they wrote, a balloon, devices, a guest that
//! misbehaves, grants that come and go, a sampler and an auditor; then a reset, and again.
//!
//! `PLIMSOLL_STRESS_OPS` sets how many operations each writer does (default 6000, seconds); a soak
//! takes millions: `PLIMSOLL_STRESS_OPS=20000000 cargo test -p plimsoll-pmap --release stress --
//! --test-threads 1`.

mod actors;

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use plimsoll_units::Pages;
use vm_memory::Bytes;

use self::actors::{auditor, balloon, device, granter, pager, rude, sampler, scribbler, writer};
use super::harness::{Served, address, paged};
use crate::mutation::Mutation;
use crate::sync::lock;

/// Longest time without any progress. A queued fault is served within milliseconds; a lost wake-up
/// waits for ever.
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
/// Slots of the swap, fewer than there are pages, so that copies of resident pages have to be given
/// up.
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

/// The content of a page in a generation. Generation 0 is zeros: never written, or given back. Of
/// the others every second shrinks well, and the rest does not.
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
        // A defect that is put in may also show as an account that falls below zero.
        for thread in threads.into_iter().chain(writers).chain([granter]) {
            if let Err(panic) = thread.join() {
                world.fail(format!("a thread panicked: {}", said(&*panic)));
            }
        }
    });
    lock(&world.failure).take().map_or(Ok(()), Err)
}

/// What a thread said when it panicked.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text")
}

/// Waits until `finished`. Where nothing moves, records that as the failure, and mends the VM so
/// that the threads can end.
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
            world.fail("a thread waits for a page that is there".to_owned());
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
    assert!(failure.contains("counted as held") || failure.contains("subtract with overflow"), "{failure}");
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
