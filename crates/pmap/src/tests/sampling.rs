use std::sync::atomic::Ordering;

use plimsoll_units::{Bytes as Size, Pages, Ppn};
use vm_memory::Bytes;

use super::harness::{Served, address, eventually, paged, served};
use crate::address::ChunkNo;
use crate::mutation::Mutation;
use crate::{Intent, PpnRange, Release, Sampler, Seen};

const CHUNKS: u64 = 4;

/// A VM whose chunks are all large, with their first pages written.
fn large() -> Served {
    let vm = served(CHUNKS + 1, CHUNKS * 512, true);
    (0..CHUNKS).for_each(|chunk| vm.write(chunk * 512, chunk + 1));
    vm
}

/// Enough draws to choose all of a few chunks but for one chance in 10^120.
const ALL: u32 = 1000;

#[test]
fn touched_chunks_are_counted_once_and_keep_their_content() {
    let vm = large();
    let mut sampler = Sampler::new(vm.pmap.clone(), ALL);
    sampler.begin();
    assert_eq!((sampler.seen().chunks.population, sampler.seen().chunks.sampled), (CHUNKS, CHUNKS));
    assert_eq!((sampler.seen().chunks.touched, vm.stats().held), (0, Pages(CHUNKS * 512)));
    vm.audit();
    assert_eq!(vm.read(0), 1);
    vm.write(512 + 7, 9);
    assert_eq!((vm.read(512), vm.read(512 + 7)), (2, 9));
    vm.audit();
    assert_eq!(sampler.seen().chunks.touched, 2);
    sampler.end();
    assert_eq!((sampler.seen().chunks.touched, vm.stats().chunks_large), (2, CHUNKS));
    (0..CHUNKS).for_each(|chunk| assert_eq!(vm.read(chunk * 512), chunk + 1));
    assert_eq!(sampler.seen().chunks.touched, 2, "what is touched between periods does not count");
    vm.audit();
}

#[test]
fn a_touch_that_is_not_counted_is_noticed() {
    let vm = large();
    let mut sampler = Sampler::new(vm.pmap.clone(), ALL);
    vm.pmap.mutate(Some(Mutation::UncountedTouch));
    sampler.begin();
    vm.write(0, 1);
    assert_eq!(sampler.seen().chunks.touched, 0);
}

#[test]
fn a_chunk_that_can_be_neither_set_aside_nor_disarmed_becomes_small() {
    let vm = large();
    let memory = &vm.pmap.vm().memory;
    // As if the kernel had found small pages only.
    memory.discard(ChunkNo(0), (100, 1)).unwrap();
    let mut sampler = Sampler::new(vm.pmap.clone(), ALL);
    memory.kernel().has_all_mappings(true);
    sampler.begin();
    memory.kernel().has_all_mappings(false);
    assert_eq!((vm.stats().chunks_small, sampler.seen().chunks.sampled), (CHUNKS, 0));
    assert!(vm.stats().held < Pages(CHUNKS * 512));
    vm.audit();
    // The missing page asks, and is provided.
    let request = vm.pmap.pin_request(&[(address(100), Size(1))], Intent::Use).unwrap();
    drop(request.try_pin().unwrap());
    (0..CHUNKS).for_each(|chunk| assert_eq!(vm.read(chunk * 512), chunk + 1));
    vm.audit();
}

#[test]
fn a_probe_shows_how_much_of_a_touched_chunk_is_in_use() {
    let vm = large();
    (0..CHUNKS * 512).for_each(|ppn| vm.write(ppn, ppn + 1));
    let mut sampler = Sampler::new(vm.pmap.clone(), ALL).probing(4);
    sampler.begin();
    assert_eq!((sampler.seen().chunks.sampled, sampler.seen().inside.sampled), (CHUNKS, 0));
    assert_eq!(vm.read(512), 513);
    vm.audit();
    let Seen { chunks, inside, .. } = sampler.seen();
    assert_eq!((chunks.touched, inside.population, inside.sampled, inside.touched), (1, CHUNKS, 16, 0));
    // Of the second chunk that is touched all is used.
    (1024..1536).for_each(|ppn| assert_eq!(vm.read(ppn), ppn + 1));
    // A page is back a moment before it is counted.
    eventually("all touches are counted", || sampler.seen().inside.touched == 16);
    let Seen { chunks, inside, pages, .. } = sampler.seen();
    assert_eq!((chunks.touched, inside.sampled, pages.touched), (2, 32, 0));
    assert_eq!((vm.stats().chunks_large, vm.stats().held), (CHUNKS - 2, Pages(CHUNKS * 512)));
    vm.audit();
    sampler.end();
    assert_eq!((sampler.seen().inside.sampled, sampler.seen().inside.touched), (32, 16));
    (0..CHUNKS * 512).for_each(|ppn| assert_eq!(vm.read(ppn), ppn + 1));
    vm.audit();
    assert_eq!(vm.pmap.promote(9), 2, "chunks that were probed are large again");
    // What was planned and is still aside can go at any time.
    sampler.begin();
    vm.write(0, 7);
    assert!(vm.pmap.reset().is_ok());
    vm.audit();
    sampler.end();
    assert_eq!((vm.read(0), vm.read(512)), (0, 0));
}

#[test]
fn a_chunk_with_device_io_is_not_probed() {
    let vm = large();
    let mut sampler = Sampler::new(vm.pmap.clone(), ALL).probing(4);
    sampler.begin();
    let guard = vm.pmap.pin(&[(address(0), Size(4096))], Intent::Use).unwrap();
    vm.audit();
    drop(guard);
    sampler.end();
    (0..CHUNKS).for_each(|chunk| assert_eq!(vm.read(chunk * 512), chunk + 1));
    vm.audit();
}

#[test]
fn faults_count_as_arrivals_until_the_next_period() {
    let vm = served(CHUNKS, 2048, true);
    let mut sampler = Sampler::new(vm.pmap.clone(), ALL);
    sampler.begin();
    vm.write(0, 1);
    eventually("the fault is recorded", || sampler.seen().arrived == Pages(512));
    sampler.begin();
    assert_eq!((sampler.seen().arrived, sampler.seen().chunks.population), (Pages::ZERO, 1));
}

#[test]
fn what_is_aside_can_be_given_back() {
    let vm = large();
    let mut sampler = Sampler::new(vm.pmap.clone(), ALL);
    sampler.begin();
    vm.pmap.release(
        &[PpnRange::new(Ppn(0), Pages(512)), PpnRange::new(Ppn(600), Pages(100))],
        Release::Reported,
    );
    vm.audit();
    assert_eq!((vm.stats().chunks_large, vm.stats().chunks_small), (CHUNKS - 2, 1));
    assert_eq!((vm.read(0), vm.read(512), vm.read(600)), (0, 2, 0));
    sampler.end();
    vm.audit();
    assert_eq!(sampler.seen().chunks.touched, 0, "a guest that gives memory back does not use it");
    sampler.begin();
    assert!(vm.pmap.reset().is_ok());
    assert_eq!(vm.stats().held, Pages::ZERO);
    vm.audit();
    assert_eq!((vm.read(512), vm.read(1024)), (0, 0));
}

#[test]
fn a_chunk_with_device_io_is_in_use_and_stays_in_its_place() {
    let vm = large();
    let guard = vm.pmap.pin(&[(address(3), Size(4096))], Intent::Use).unwrap();
    let mut sampler = Sampler::new(vm.pmap.clone(), ALL);
    sampler.begin();
    assert_eq!((sampler.seen().chunks.sampled, sampler.seen().chunks.touched), (CHUNKS, 1));
    drop(guard);
    let guard = vm.pmap.pin(&[(address(512), Size(8192))], Intent::Use).unwrap();
    assert_eq!(sampler.seen().chunks.touched, 2, "a pin touches its pages");
    drop(guard);
    drop(sampler);
    assert_eq!(vm.read(512), 2);
    vm.audit();
}

#[test]
fn touched_pages_of_small_chunks_are_counted_once_and_keep_their_content() {
    let vm = served(CHUNKS, 2048, false);
    (0..100).for_each(|i| vm.write(i * 10, i + 1));
    let mut sampler = Sampler::new(vm.pmap.clone(), ALL);
    sampler.begin();
    let sampled = sampler.seen().pages;
    assert_eq!((sampled.population, sampled.touched, vm.stats().held), (100, 0, Pages(100)));
    assert!(sampled.sampled > 98, "{sampled:?}");
    vm.audit();
    (0..50).for_each(|i| assert_eq!(vm.read(i * 10), i + 1));
    (50..60).for_each(|i| vm.write(i * 10, 7));
    vm.pmap.release(&[PpnRange::new(Ppn(600), Pages(100))], Release::Ballooned);
    vm.audit();
    assert!((58..=60).contains(&sampler.seen().pages.touched), "{:?}", sampler.seen());
    sampler.end();
    assert_eq!(vm.stats().held, Pages(90));
    (0..50).chain(70..100).for_each(|i| assert_eq!(vm.read(i * 10), i + 1));
    vm.audit();
    assert_eq!(sampler.seen().arrived, Pages::ZERO, "what comes back from aside does not arrive");
    // All of it can go while it is aside.
    sampler.begin();
    assert!(vm.pmap.reset().is_ok());
    vm.audit();
    assert_eq!(vm.read(0), 0);
}

#[test]
fn what_is_watched_can_be_paged_out() {
    let vm = paged(CHUNKS + 1, CHUNKS * 512, true, 100, 2048);
    (0..CHUNKS).for_each(|chunk| vm.write(chunk * 512, chunk + 1));
    let mut sampler = Sampler::new(vm.pmap.clone(), ALL);
    sampler.begin();
    // All that was never written holds zeros, which need neither store nor swap.
    let out = vm.pmap.page_out(Pages(CHUNKS * 512 - 2 * CHUNKS));
    assert!(out.freed >= Pages(CHUNKS * 500), "{out:?}");
    vm.audit();
    (0..CHUNKS).for_each(|chunk| assert_eq!(vm.read(chunk * 512), chunk + 1));
    sampler.end();
    vm.audit();
}

/// The most mappings a process may have are reached while samples are aside, which cannot be moved
/// back then.
#[test]
fn what_is_aside_comes_back_where_the_kernel_moves_nothing() {
    for huge_pages in [true, false] {
        let vm = served(CHUNKS + 1, CHUNKS * 512, huge_pages);
        let pages = || (0..CHUNKS * 512).step_by(16);
        pages().for_each(|ppn| vm.write(ppn, ppn + 1));
        let mut sampler = Sampler::new(vm.pmap.clone(), ALL);
        sampler.begin();
        let aside = sampler.seen().chunks.sampled + sampler.seen().pages.sampled;
        assert!(aside >= CHUNKS, "{aside}");
        vm.pmap.vm().memory.mapping().full.store(true, Ordering::SeqCst);
        assert_eq!((vm.read(0), vm.read(528)), (1, 529));
        vm.write(1024, 7);
        vm.write(1024, 1025);
        vm.audit();
        assert!((1..=3).contains(&(sampler.seen().chunks.touched + sampler.seen().pages.touched)));
        sampler.end();
        vm.audit();
        vm.pmap.vm().memory.mapping().full.store(false, Ordering::SeqCst);
        pages().for_each(|ppn| assert_eq!(vm.read(ppn), ppn + 1, "page {ppn}"));
        pages().for_each(|ppn| vm.write(ppn, ppn + 2));
        // And all is as it was: what was copied back can be put aside and given back again.
        sampler.begin();
        sampler.end();
        pages().for_each(|ppn| assert_eq!(vm.read(ppn), ppn + 2, "page {ppn}"));
        vm.audit();
        vm.pmap.release(&[PpnRange::new(Ppn(0), Pages(CHUNKS * 512))], Release::Reported);
        assert_eq!((vm.stats().held, vm.read(16)), (Pages::ZERO, 0));
    }
}

/// The thread that serves faults must not wake a guest for ever over a page that could not be
/// unprotected when that was due.
#[test]
fn a_private_page_that_was_left_protected_can_be_written() {
    let vm = served(CHUNKS, 2048, false);
    vm.write(5, 1);
    vm.pmap.vm().memory.protect(crate::address::ChunkNo(0), &crate::address::PageSet::one(5)).unwrap();
    vm.write(5, 2);
    assert_eq!(vm.read(5), 2);
    vm.audit();
}

#[test]
fn no_huge_page_is_lost_to_sampling() {
    let vm = large();
    let before = huge_pages(&vm);
    let writers: Vec<_> = (0..2u64)
        .map(|id| {
            let ram = vm.pmap.ram().clone();
            std::thread::spawn(move || {
                for i in 0..4000u64 {
                    let ppn = (i * 7919 % (CHUNKS * 512)) & !1 | id;
                    ram.write_obj(i, address(ppn)).unwrap();
                }
            })
        })
        .collect();
    let mut sampler = Sampler::new(vm.pmap.clone(), ALL);
    let mut touched = 0;
    while !writers.iter().all(std::thread::JoinHandle::is_finished) {
        sampler.begin();
        std::thread::yield_now();
        sampler.end();
        touched += sampler.seen().chunks.touched;
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert_eq!(huge_pages(&vm), before, "KiB of huge pages after {touched} touches of what was aside");
    vm.audit();
}

/// What the kernel says of guest RAM's huge pages, in KiB; 0 without any.
fn huge_pages(vm: &Served) -> u64 {
    let start = vm.pmap.vm().memory.mapping().host(0) as u64;
    let end = start + vm.pmap.vm().memory.mapping().len() as u64;
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut inside, mut sum) = (false, 0);
    for line in smaps.lines() {
        let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        if let Some(first) = range.and_then(|(first, _)| u64::from_str_radix(first, 16).ok()) {
            inside = (start..end).contains(&first);
        } else if let Some(huge) = line.strip_prefix("AnonHugePages:").filter(|_| inside) {
            sum += huge.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
        }
    }
    sum
}
