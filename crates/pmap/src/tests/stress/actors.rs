//! What the threads of the stress do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use plimsoll_units::{Bytes as Size, PAGE_SIZE, Pages, Ppn};

use super::{
    DEVICES, FIRST_DEVICE_CHUNK, FIRST_SCRATCH_CHUNK, PAGE, Random, SAMPLES, SCRATCH_CHUNKS, SHARED_CHUNKS,
    WRITERS, World, holds, put,
};
use crate::inject::pin;
use crate::tests::direct_io::Disk;
use crate::tests::harness::address;
use crate::{Inflation, Intent, PpnRange, Release, Sampler, Seen};

/// Pages that a writer gives up: to the balloon, or as free.
pub(super) struct Given {
    writer: usize,
    ppns: Vec<u64>,
    how: Release,
}

/// Owns pages, writes generations to them, verifies them, gives some up and gets them back empty.
pub(super) fn writer(
    world: &World,
    id: u64,
    ops: u64,
    give: &Sender<Given>,
    returned: &Receiver<Vec<u64>>,
    seed: u64,
) {
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

/// An honest balloon driver and device: releases what was given up, in any order, and later hands
/// it back.
pub(super) fn balloon(world: &World, given: &Receiver<Given>, give_back: &[Sender<Vec<u64>>], seed: u64) {
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

/// Writes pinned memory to a file, clears it and reads it back, while `rude` gives the same pages
/// back.
pub(super) fn device(world: &World, id: u64, seed: u64) {
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
pub(super) fn rude(world: &World, seed: u64) {
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
pub(super) fn scribbler(world: &World, seed: u64) {
    let mut random = Random(seed);
    while !world.over() {
        let ppn = FIRST_SCRATCH_CHUNK * 512 + random.below(SCRATCH_CHUNKS * 512);
        world.vm.write(ppn, 1);
    }
}

/// Grants what is asked for bit by bit, sometimes nothing, and takes back what it can.
pub(super) fn granter(world: &World, running: &AtomicBool, seed: u64) {
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
pub(super) fn sampler(world: &World, seed: u64) {
    let mut random = Random(seed);
    let mut sampler = Sampler::new(world.vm.pmap.clone(), SAMPLES).probing(4);
    while !world.over() {
        sampler.begin();
        (0..random.below(4)).for_each(|_| std::thread::yield_now());
        sampler.end();
        let seen = sampler.seen();
        let Seen { chunks, inside, .. } = seen;
        if chunks.touched > chunks.sampled
            || chunks.sampled > chunks.population
            || inside.touched > inside.sampled
        {
            return world.fail(format!("{seen:?}"));
        }
    }
}

/// Takes pages away, and makes chunks large again, as fast as it can.
pub(super) fn pager(world: &World, seed: u64) {
    let mut random = Random(seed);
    while !world.over() {
        match random.below(8) {
            0 => drop(world.vm.pmap.promote(2)),
            _ => drop(world.vm.pmap.page_out(Pages(1 + random.below(600)))),
        }
        std::thread::yield_now();
    }
}

pub(super) fn auditor(world: &World) {
    while !world.over() {
        if let Err(found) = world.vm.pmap.audit() {
            return world.fail(format!("{}", found[0]));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
