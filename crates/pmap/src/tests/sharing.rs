use std::time::Duration;

use plimsoll_units::{Bytes, PAGE_SIZE, Pages, Ppn};
use vm_memory::Bytes as _;

use super::frames::Frames;
use super::harness::{Served, address, paged, served};
use super::paging::{get, noise, put, take_all};
use crate::mutation::Mutation;
use crate::{Intent, PpnRange, Release, ScanOrder};

const EAGER: ScanOrder = ScanOrder { break_large: true };

/// Looks at all of a VM once.
fn scan(vm: &Served) {
    while !vm.pmap.scan(EAGER, Duration::from_secs(60)).pass_ended {}
}

/// Has VMs find each other's pages.
fn settle(host: &Frames, vms: &[&Served]) {
    for _ in 0..2 {
        for (id, vm) in vms.iter().enumerate() {
            scan(vm);
            vms.iter().enumerate().for_each(|(id, vm)| host.deliver(id, vm));
            host.deliver(id, vm);
        }
    }
}

/// Two VMs, whose first `pages` pages are the same.
fn twins(pages: u64, huge_pages: bool) -> (std::sync::Arc<Frames>, Served, Served) {
    let host = Frames::new();
    let [a, b] = [0, 1].map(|id| {
        let vm = paged(3, 4096, huge_pages, 200, 3000);
        host.join(id, &vm);
        vm
    });
    for vm in [&a, &b] {
        (0..pages).for_each(|ppn| put(vm, ppn, &noise(ppn + 1)));
    }
    settle(&host, &[&a, &b]);
    (host, a, b)
}

#[test]
fn equal_pages_are_shared_and_break_when_written() {
    for huge_pages in [true, false] {
        let (host, a, b) = twins(200, huge_pages);
        for vm in [&a, &b] {
            assert_eq!((vm.stats().shared, vm.stats().held), (Pages(200), Pages::ZERO), "{huge_pages}");
            vm.audit();
        }
        host.check(&[&a, &b]);
        assert_eq!((host.frames(), host.references()), (200, 400));
        (0..200).for_each(|ppn| assert_eq!(get(&a, ppn), noise(ppn + 1)));
        assert_eq!(a.stats().held, Pages::ZERO, "reading costs nothing");
        (50..60).for_each(|ppn| put(&a, ppn, &noise(1000 + ppn)));
        assert_eq!((a.stats().shared, a.stats().held), (Pages(190), Pages(10)));
        (50..60)
            .for_each(|ppn| assert_eq!((get(&a, ppn), get(&b, ppn)), (noise(1000 + ppn), noise(ppn + 1))));
        assert_eq!((a.stats().sharing.broken, b.stats().shared), (10, Pages(200)));
        [&a, &b].iter().for_each(|vm| vm.audit());
        host.check(&[&a, &b]);
    }
}

#[test]
fn pages_of_one_vm_are_shared_with_each_other() {
    let host = Frames::new();
    let vm = served(3, 4096, false);
    host.join(0, &vm);
    (0..300).for_each(|ppn| put(&vm, ppn, &noise(ppn % 3 + 1)));
    for _ in 0..3 {
        scan(&vm);
        host.deliver(0, &vm);
    }
    assert_eq!((vm.stats().shared, vm.stats().held, host.frames()), (Pages(300), Pages::ZERO, 3));
    vm.audit();
    host.check(&[&vm]);
    (0..300).for_each(|ppn| assert_eq!(get(&vm, ppn), noise(ppn % 3 + 1)));
}

#[test]
fn zeros_are_dropped_without_a_frame() {
    let vm = served(3, 4096, false);
    // Backwards, so that no page is provided with another.
    (0..100).rev().for_each(|ppn| put(&vm, ppn, &noise(1)));
    (0..100).for_each(|ppn| put(&vm, ppn, &[0; 4096]));
    put(&vm, 7, &noise(7));
    scan(&vm);
    assert_eq!((vm.stats().zero, vm.stats().held), (Pages(99), Pages(1)));
    vm.audit();
    (0..100).filter(|&ppn| ppn != 7).for_each(|ppn| assert_eq!(get(&vm, ppn), [0; 4096]));
    assert_eq!((vm.stats().zero, get(&vm, 7)), (Pages::ZERO, noise(7)));
    vm.audit();
}

#[test]
fn a_break_beyond_the_grant_waits() {
    let (host, a, b) = twins(100, false);
    a.pmap.return_grant(Pages::ZERO);
    let write = a.spawn_write(5, 77);
    super::harness::eventually("the write asks", || a.source.wanted() == Pages(1));
    assert_eq!(a.stats().held, Pages::ZERO);
    a.pmap.add_grant(Pages(1));
    write.join().unwrap();
    assert_eq!((a.stats().held, a.read(5)), (Pages(1), 77));
    host.check(&[&a, &b]);
}

#[test]
fn what_was_shared_can_be_released_ballooned_paged_out_promoted_sampled_and_reset() {
    let (host, a, b) = twins(400, false);
    // Some pages of each kind: shared ones, and broken ones, which lie in the mapping of a frame.
    (0..400).step_by(3).for_each(|ppn| put(&a, ppn, &noise(2000 + ppn)));
    let content = |ppn| if ppn % 3 == 0 { noise(2000 + ppn) } else { noise(ppn + 1) };
    a.pmap.release(&[PpnRange::new(Ppn(0), Pages(50))], Release::Reported);
    a.pmap.release(&[PpnRange::new(Ppn(50), Pages(50))], Release::Ballooned);
    a.audit();
    host.check(&[&a, &b]);
    (0..50).for_each(|ppn| assert_eq!(get(&a, ppn), [0; 4096], "page {ppn}"));
    take_all(&a);
    a.audit();
    (100..400).for_each(|ppn| assert_eq!(get(&a, ppn), content(ppn), "page {ppn}"));
    let mut sampler = crate::Sampler::new(a.pmap.clone(), 500);
    (100..200).step_by(2).for_each(|ppn| put(&a, ppn, &content(ppn)));
    sampler.begin();
    a.audit();
    drop(sampler);
    (100..400).for_each(|ppn| assert_eq!(get(&a, ppn), content(ppn), "page {ppn}"));
    a.audit();
    a.pmap.reset().unwrap();
    a.audit();
    assert_eq!((a.stats().held, a.stats().shared, a.pmap.references().len()), (Pages::ZERO, Pages::ZERO, 0));
    host.check(&[&a, &b]);
    (0..400).for_each(|ppn| assert_eq!((get(&a, ppn), get(&b, ppn)), (vec![0; 4096], noise(ppn + 1))));
}

/// Why pages are taken out of the mappings of frames first: discarded there, they are the frames
/// again.
#[test]
fn paging_out_within_the_mapping_of_a_frame_is_noticed() {
    let (_host, a, _b) = twins(100, false);
    a.pmap.mutate(Some(Mutation::NoRehoming));
    put(&a, 5, &noise(2005));
    take_all(&a);
    assert_eq!(get(&a, 5), noise(6), "the write is lost");
    assert!(a.pmap.audit().is_err());
}

#[test]
fn a_chunk_with_shared_pages_becomes_large_again() {
    let (host, a, b) = twins(512, true);
    (0..512).step_by(2).for_each(|ppn| put(&a, ppn, &noise(2000 + ppn)));
    assert_eq!(a.stats().chunks_small, 1);
    assert_eq!(a.pmap.promote(8), 1);
    assert_eq!((a.stats().shared, a.stats().chunks_large), (Pages::ZERO, 1));
    let content = |ppn| if ppn % 2 == 0 { noise(2000 + ppn) } else { noise(ppn + 1) };
    (0..512).for_each(|ppn| assert_eq!(get(&a, ppn), content(ppn)));
    a.audit();
    host.check(&[&a, &b]);
    assert_eq!(b.stats().shared, Pages(512));
}

#[test]
fn a_domain_can_be_left() {
    let (host, a, b) = twins(300, false);
    a.pmap.return_grant(Pages(100));
    assert_eq!(a.pmap.leave_frames(), Pages(200));
    a.audit();
    host.check(&[&a, &b]);
    a.pmap.add_grant(Pages(300));
    assert_eq!(a.pmap.leave_frames(), Pages::ZERO);
    assert_eq!((a.stats().held, a.stats().shared), (Pages(300), Pages::ZERO));
    host.check(&[&a, &b]);
    (0..300).for_each(|ppn| assert_eq!(get(&a, ppn), noise(ppn + 1)));
    scan(&a);
    assert_eq!(a.stats().shared, Pages::ZERO, "there is no pool to share with");
}

#[test]
fn a_source_that_lies_harms_nobody() {
    let (host, a, b) = twins(10, false);
    host.lie();
    (100..200).for_each(|ppn| put(&a, ppn, &noise(5000 + ppn)));
    scan(&a);
    assert_eq!((a.stats().shared, host.mismatched()), (Pages(10), 100));
    (100..200).for_each(|ppn| assert_eq!(get(&a, ppn), noise(5000 + ppn)));
    a.audit();
    host.check(&[&a, &b]);
}

#[test]
fn a_frame_that_a_device_reads_is_kept() {
    let (host, a, b) = twins(10, false);
    let range = (address(3), Bytes(PAGE_SIZE));
    let guard = a.pmap.pin(&[range], Intent::Use).unwrap();
    // Pinning makes pages writable. One that is shared while it is pinned is a device's that only
    // reads.
    assert_eq!(a.stats().shared, Pages(9));
    drop(guard);
    host.check(&[&a, &b]);
}

#[test]
fn pages_just_loaded_are_looked_at_first() {
    let host = Frames::new();
    let vm = served(40, 40 * 512, false);
    host.join(0, &vm);
    (0..39).for_each(|chunk| put(&vm, chunk * 512, &noise(1)));
    vm.pmap.prioritize(&[PpnRange::new(Ppn(20 * 512), Pages(1024))]);
    assert_eq!(vm.pmap.scan(EAGER, Duration::ZERO).pages, Pages(1));
    assert_eq!(vm.pmap.scan(EAGER, Duration::ZERO).pages, Pages(1));
    assert_eq!(vm.stats().shared, Pages(1), "two chunks were looked at: those that were named");
    host.deliver(0, &vm);
    let shared: Vec<_> = vm.pmap.references().iter().map(|(page, _)| page.0 / 512).collect();
    assert_eq!(shared, [20, 21]);
}

#[test]
fn unchanged_pages_are_not_read_again() {
    let (_host, a, _b) = twins(100, false);
    (200..500).for_each(|ppn| put(&a, ppn, &noise(9000 + ppn)));
    scan(&a);
    let hashed = a.stats().sharing.hashed;
    for _ in 0..4 {
        scan(&a);
    }
    assert_eq!(a.stats().sharing.hashed, hashed);
    put(&a, 333, &noise(1));
    for _ in 0..4 {
        scan(&a);
    }
    assert_eq!(a.stats().sharing.hashed, hashed + 1, "the page that was changed");
}

/// Breaking needs no mapping: the page stays where it is, and is a copy.
#[test]
fn shared_pages_break_where_the_kernel_makes_no_mapping() {
    let (host, a, b) = twins(300, false);
    (0..20).for_each(|ppn| put(&a, ppn, &noise(3000 + ppn)));
    a.pmap.vm().memory.mapping().full.store(true, std::sync::atomic::Ordering::SeqCst);
    (10..40).step_by(2).for_each(|ppn| put(&a, ppn, &noise(3000 + ppn)));
    (500..520).for_each(|ppn| put(&a, ppn, &noise(ppn - 499)));
    scan(&a);
    host.deliver(0, &a);
    assert_eq!(a.stats().shared, Pages(300 - 20 - 10), "nothing more is shared");
    // What lies in mappings of frames cannot be taken, and everything else can.
    take_all(&a);
    a.audit();
    host.check(&[&a, &b]);
    let broken = |ppn| ppn < 20 || (ppn < 40 && ppn % 2 == 0);
    let content = |ppn| noise(if broken(ppn) { 3000 + ppn } else { ppn + 1 });
    (0..300).for_each(|ppn| assert_eq!(get(&a, ppn), content(ppn), "page {ppn}"));
    (0..300).for_each(|ppn| assert_eq!(get(&b, ppn), noise(ppn + 1), "page {ppn}"));
    (500..520).for_each(|ppn| assert_eq!(get(&a, ppn), noise(ppn - 499), "page {ppn}"));
    a.pmap.vm().memory.mapping().full.store(false, std::sync::atomic::Ordering::SeqCst);
    take_all(&a);
    (0..300).for_each(|ppn| assert_eq!(get(&a, ppn), content(ppn), "page {ppn}"));
    a.audit();
    host.check(&[&a, &b]);
}

/// A chunk that is being sampled is read where it is aside: the scanner's look is no use of it by
/// the guest.
#[test]
fn a_chunk_that_is_aside_is_scanned_where_it_is_and_brought_back_where_it_pays() {
    for (alike, pays) in [(8, false), (100, true)] {
        let host = Frames::new();
        let [a, b] = [0, 1].map(|id| {
            let vm = paged(3, 4096, true, 200, 3000);
            host.join(id, &vm);
            vm
        });
        (0..512).for_each(|ppn| put(&a, ppn, &noise(ppn + 1)));
        (0..alike).for_each(|ppn| put(&b, ppn + 7, &noise(ppn + 1)));
        scan(&b);
        let mut sampler = crate::Sampler::new(a.pmap.clone(), 500);
        sampler.begin();
        assert_eq!((sampler.seen().chunks.sampled, a.stats().chunks_large), (1, 1));
        scan(&a);
        assert_eq!(a.stats().sharing.hashed, 512, "all of it was read");
        assert_eq!(sampler.seen().chunks.touched, 0, "and not by the guest");
        host.deliver(1, &b);
        host.deliver(0, &a);
        let shared = if pays { alike } else { 0 };
        assert_eq!((a.stats().shared, a.stats().chunks_large), (Pages(shared), u64::from(!pays)));
        a.audit();
        (0..512).for_each(|ppn| assert_eq!(get(&a, ppn), noise(ppn + 1)));
        // What is read is what it holds now, and not what was in its place before.
        (0..512).for_each(|ppn| put(&a, ppn, &noise(ppn + 9000)));
        sampler.begin();
        scan(&a);
        sampler.end();
        (0..512).for_each(|ppn| assert_eq!(get(&a, ppn), noise(ppn + 9000)));
        a.audit();
        host.check(&[&a, &b]);
    }
}

/// Mappings of this process within a VM's guest RAM.
fn mappings_of(vm: &Served) -> u64 {
    let ram = vm.pmap.vm().memory.mapping().range(0, vm.pmap.vm().memory.mapping().len());
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let starts = maps.lines().filter_map(|line| u64::from_str_radix(line.split('-').next()?, 16).ok());
    starts.filter(|start| (ram.start..ram.start + ram.len).contains(start)).count() as u64
}

#[test]
fn the_account_of_mappings_is_never_below_what_the_process_has() {
    let (host, a, b) = twins(200, false);
    let chunks = a.stats().size.0 / 512;
    let check = |what: &str, most: u64| {
        let (counted, there) = (a.pmap.vm().account().mappings(), mappings_of(&a));
        assert!(there <= counted + chunks, "{what}: {there} mappings, {counted} counted beside the chunks'");
        assert!(counted <= most, "{what}: {counted} counted");
        a.audit();
    };
    check("shared", 400);
    // Broken shares stay in the mappings of their frames.
    (0..200).step_by(3).for_each(|ppn| put(&a, ppn, &noise(5000 + ppn)));
    check("written", 400);
    assert!(a.pmap.vm().account().mappings() > 0);
    // They are taken out of them, and come back into memory that is not the chunk's own.
    take_all(&a);
    check("paged out", 800);
    (0..200).for_each(|ppn| drop(get(&a, ppn)));
    check("brought back", 800);
    let all = PpnRange::new(Ppn(0), Pages(512));
    a.pmap.release(&[PpnRange::new(Ppn(20), Pages(100))], Release::Ballooned);
    check("ballooned in part", 800);
    a.pmap.release(&[all], Release::Ballooned);
    check("ballooned", 0);
    a.pmap.deflate(&[all]);
    check("deflated", 0);
    assert_eq!(a.stats().chunks_small, 0);
    host.check(&[&a, &b]);
}

#[test]
fn a_chunk_of_which_nothing_is_left_is_renewed_without_losing_what_is_written_meanwhile() {
    // One that was never touched, and one that was provided with its neighbours and dropped because
    // it holds zeros. Both are the guest's.
    for page in [300, 55] {
        let (host, a, b) = twins(50, false);
        scan(&a);
        assert_eq!((a.stats().zero, a.stats().held), (Pages(13), Pages::ZERO));
        let ram = a.pmap.ram().clone();
        let write = move || ram.write_obj(77u64, address(page)).unwrap();
        a.pmap.vm().memory.kernel().before_arming(write);
        a.pmap.release(&[PpnRange::new(Ppn(0), Pages(50))], Release::Reported);
        assert_eq!((a.read(page), a.stats().held), (77, Pages(1)));
        a.audit();
        a.pmap.release(&[PpnRange::new(Ppn(page), Pages(1))], Release::Reported);
        assert_eq!((a.stats().chunks_small, a.stats().held), (0, Pages::ZERO), "it is one mapping");
        host.check(&[&a, &b]);
    }
}

#[test]
fn a_chunk_is_renewed_with_what_its_last_pages_free() {
    let (host, a, b) = twins(50, false);
    (0..20).for_each(|ppn| put(&a, ppn, &noise(1000 + ppn)));
    assert_eq!(a.stats().held, Pages(20));
    a.pmap.return_grant(Pages(492));
    let outcome = a.pmap.release(&[PpnRange::new(Ppn(0), Pages(50))], Release::Reported);
    assert_eq!((outcome.freed, a.stats().chunks_small, a.stats().held), (Pages(20), 0, Pages::ZERO));
    a.audit();
    host.check(&[&a, &b]);
}

#[test]
fn a_chunk_without_room_in_the_grant_is_not_renewed() {
    let (host, a, b) = twins(50, false);
    a.pmap.return_grant(Pages(511));
    a.pmap.release(&[PpnRange::new(Ppn(0), Pages(50))], Release::Reported);
    assert_eq!((a.stats().chunks_small, a.stats().held), (1, Pages::ZERO));
    a.audit();
    // The next release finds room.
    a.pmap.add_grant(Pages(1));
    a.pmap.release(&[PpnRange::new(Ppn(100), Pages(1))], Release::Reported);
    assert_eq!((a.stats().chunks_small, a.stats().held), (0, Pages::ZERO));
    a.audit();
    host.check(&[&a, &b]);
}
