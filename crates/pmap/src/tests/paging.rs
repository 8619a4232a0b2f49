use plimsoll_units::{Bytes, PAGE_SIZE, Pages, Ppn};
use vm_memory::Bytes as _;

use super::harness::{HIGH, Served, address, eventually, paged};
use crate::page::step::observed::missing;
use crate::{GuestRam, Intent, PagedOut, PpnRange, Release};

/// A page that does not shrink, different for every `seed`.
pub(crate) fn noise(seed: u64) -> Vec<u8> {
    let mut word = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word.to_ne_bytes()
    };
    (0..PAGE_SIZE / 8).flat_map(|_| next()).collect()
}

/// A page that shrinks to next to nothing.
pub(crate) fn text(seed: u64) -> Vec<u8> {
    seed.to_ne_bytes().repeat(512)
}

pub(crate) fn put(vm: &Served, ppn: u64, page: &[u8]) {
    vm.pmap.ram().write_slice(page, address(ppn)).unwrap();
}

pub(super) fn get(vm: &Served, ppn: u64) -> Vec<u8> {
    read(vm.pmap.ram(), ppn)
}

pub(super) fn read(ram: &GuestRam, ppn: u64) -> Vec<u8> {
    let mut page = vec![0; 4096];
    ram.read_slice(&mut page, address(ppn)).unwrap();
    page
}

/// Takes all that the VM holds and that can be taken, however slow the disk. What faults brought in
/// lately needs a second look.
pub(super) fn take_all(vm: &Served) {
    let mut in_vain = 0;
    while in_vain < 3 {
        let freed = vm.pmap.page_out(Pages(1 << 20)).freed;
        in_vain = if freed == Pages::ZERO { in_vain + 1 } else { 0 };
        vm.settle();
    }
}

#[test]
fn compressible_pages_are_compressed_and_come_back() {
    for huge_pages in [true, false] {
        let vm = paged(3, 2048, huge_pages, 200, 0);
        (0..512).for_each(|ppn| put(&vm, ppn, &text(ppn + 1)));
        take_all(&vm);
        let stats = vm.stats();
        assert_eq!((stats.compressed, stats.held), (Pages(512), stats.store));
        assert!(stats.store > Pages::ZERO && stats.store < Pages(100), "{stats:?}");
        vm.audit();
        (0..512).for_each(|ppn| assert_eq!(get(&vm, ppn), text(ppn + 1), "page {ppn}"));
        let stats = vm.stats();
        assert_eq!((stats.compressed, stats.store, stats.held), (Pages::ZERO, Pages::ZERO, Pages(512)));
        assert_eq!((stats.traffic.zipped, stats.traffic.unzipped), (512, 512));
        vm.audit();
    }
}

#[test]
fn what_the_store_gives_back_with_its_pages_is_told_as_freed() {
    let vm = paged(3, 2048, true, 200, 0);
    (0..512).for_each(|ppn| put(&vm, ppn, &text(ppn + 1)));
    take_all(&vm);
    let (stats, told) = (vm.stats(), vm.source.freed());
    assert_eq!((stats.compressed, stats.held), (Pages(512), stats.store));
    let outcome = vm.pmap.release(&[PpnRange::new(Ppn(0), Pages(256))], Release::Reported);
    assert_eq!(outcome.freed, stats.held - vm.stats().held);
    assert!(outcome.freed > Pages::ZERO && vm.source.freed() == told + 1, "{outcome:?}");
    assert_eq!(vm.pmap.reset().unwrap(), stats.held - outcome.freed);
    assert_eq!((vm.stats().held, vm.source.freed()), (Pages::ZERO, told + 2));
    vm.audit();
}

#[test]
fn other_pages_are_swapped_and_come_back() {
    let vm = paged(3, 2048, true, 200, 2048);
    (0..512).for_each(|ppn| put(&vm, ppn, &noise(ppn)));
    take_all(&vm);
    assert_eq!((vm.stats().swapped, vm.stats().held), (Pages(512), Pages::ZERO));
    assert_eq!(vm.free_slots(), Pages(2048 - 512));
    vm.audit();
    (0..512).for_each(|ppn| assert_eq!(get(&vm, ppn), noise(ppn), "page {ppn}"));
    vm.settle();
    let stats = vm.stats();
    assert_eq!((stats.swapped, stats.held, stats.traffic.swapped_in), (Pages::ZERO, Pages(512), 512));
    vm.audit();
}

#[test]
fn zeros_are_dropped() {
    let vm = paged(3, 2048, true, 0, 2048);
    vm.write(0, 0);
    take_all(&vm);
    assert_eq!((vm.stats().held, vm.stats().swapped, vm.stats().chunks_empty), (Pages::ZERO, Pages::ZERO, 3));
    assert_eq!(vm.read(0), 0);
}

#[test]
fn a_page_that_was_only_read_is_dropped_and_not_written_again() {
    let vm = paged(3, 2048, false, 0, 2048);
    (0..16).for_each(|ppn| put(&vm, ppn, &noise(ppn)));
    take_all(&vm);
    (0..16).for_each(|ppn| assert_eq!(get(&vm, ppn), noise(ppn)));
    vm.settle();
    vm.audit();
    assert_eq!(vm.free_slots(), Pages(2048 - 16), "the copies are kept");
    vm.pmap.vm().content.swap().unwrap().faults().fail_writes(0, usize::MAX);
    take_all(&vm);
    assert_eq!((vm.stats().swapped, vm.source.troubles()), (Pages(16), vec![]), "nothing was written");
    vm.pmap.vm().content.swap().unwrap().faults().heal();
    (0..16).for_each(|ppn| assert_eq!(get(&vm, ppn), noise(ppn)));
}

#[test]
fn a_copy_that_has_become_wrong_is_not_used() {
    let vm = paged(3, 2048, false, 0, 2048);
    put(&vm, 3, &noise(1));
    take_all(&vm);
    assert_eq!(get(&vm, 3), noise(1));
    vm.write(3, 77);
    vm.audit();
    // The thread that has read the page into place may still hold its slot.
    vm.settle();
    assert_eq!(vm.free_slots(), Pages(2048));
    take_all(&vm);
    assert_eq!(vm.read(3), 77);
    assert_eq!(get(&vm, 3)[8..], noise(1)[8..]);
}

#[test]
fn neighbours_come_along_with_who_goes_from_page_to_page_as_far_as_the_grant_goes() {
    let vm = paged(3, 16, false, 0, 2048);
    (0..16).for_each(|ppn| put(&vm, ppn, &noise(ppn)));
    take_all(&vm);
    let held_after = |ppn| {
        assert_eq!(get(&vm, ppn), noise(ppn));
        vm.settle();
        vm.stats().held.0
    };
    assert_eq!((held_after(4), held_after(15)), (1, 2), "alone: it came from nowhere near");
    assert_eq!((held_after(5), vm.stats().swapped), (10, Pages(6)), "with 6 to 12");
    vm.pmap.return_grant(Pages(1));
    assert_eq!((held_after(13), vm.stats().grant), (11, Pages(11)));
    vm.audit();
}

#[test]
fn a_full_store_gives_its_oldest_pages_to_the_swap() {
    let vm = paged(3, 2048, true, 100, 2048);
    (0..1024).for_each(|ppn| put(&vm, ppn, &[&noise(ppn)[..1400], &[0; 2696]].concat()));
    take_all(&vm);
    let stats = vm.stats();
    assert!(stats.store <= Pages(100) && stats.compressed > Pages(60), "{stats:?}");
    assert_eq!(stats.compressed + stats.swapped, Pages(1024));
    // The one change of state that the model check does not reach.
    assert!(missing().iter().all(|state| !state.starts_with("Spill")));
    vm.audit();
    (0..1024).for_each(|ppn| assert_eq!(get(&vm, ppn)[..1400], noise(ppn)[..1400]));
    vm.audit();
}

#[test]
fn with_nowhere_to_go_pages_stay() {
    let vm = paged(3, 2048, true, 0, 100);
    (0..512).for_each(|ppn| put(&vm, ppn, &noise(ppn)));
    take_all(&vm);
    assert!(vm.pmap.page_out(Pages(1)).stuck);
    assert_eq!((vm.stats().swapped, vm.stats().held), (Pages(100), Pages(412)));
    vm.audit();
    (0..512).for_each(|ppn| assert_eq!(get(&vm, ppn), noise(ppn)));
    // All slots hold copies of resident pages now: they are given up for pages that have none.
    vm.settle();
    take_all(&vm);
    assert_eq!(vm.stats().swapped, Pages(100));
    vm.audit();
}

#[test]
fn pages_under_io_are_not_taken() {
    let vm = paged(3, 2048, true, 100, 2048);
    (0..512).for_each(|ppn| put(&vm, ppn, &noise(ppn)));
    let guard = vm.pmap.pin(&[(address(7), Bytes(2 * PAGE_SIZE))], Intent::Use).unwrap();
    take_all(&vm);
    assert_eq!((vm.stats().held, vm.stats().swapped), (Pages(2), Pages(510)));
    drop(guard);
    take_all(&vm);
    assert_eq!(vm.stats().held, Pages::ZERO);
}

#[test]
fn what_a_device_overwrites_is_not_read_first() {
    let vm = paged(3, 2048, false, 100, 2048);
    (0..4).for_each(|ppn| put(&vm, ppn, &if ppn == 2 { text(9) } else { noise(ppn) }));
    take_all(&vm);
    vm.pmap.vm().content.swap().unwrap().faults().fail_reads(0, usize::MAX);
    let whole = (address(1), Bytes(2 * PAGE_SIZE));
    let guard = vm.pmap.pin(&[whole], Intent::Overwrite).unwrap();
    assert_eq!((vm.read(1), vm.read(2), vm.stats().held), (0, 0, Pages(2)));
    drop(guard);
    assert!(vm.source.troubles().is_empty());
    vm.pmap.vm().content.swap().unwrap().faults().heal();
    // The first page is only covered in part.
    let part = (vm_memory::GuestAddress(1), Bytes(4095));
    drop(vm.pmap.pin(&[part], Intent::Overwrite).unwrap());
    assert_eq!((get(&vm, 0), get(&vm, 3)), (noise(0), noise(3)));
    vm.audit();
}

#[test]
fn what_is_given_back_or_reset_leaves_nothing_behind() {
    let vm = paged(3, 2048, true, 100, 2048);
    let fill = || (0..512).for_each(|ppn| put(&vm, ppn, &if ppn % 2 == 0 { text(9) } else { noise(ppn) }));
    fill();
    take_all(&vm);
    let half = PpnRange::new(Ppn(0), Pages(256));
    vm.pmap.release(&[half], Release::Reported);
    assert_eq!((vm.stats().compressed, vm.stats().swapped), (Pages(128), Pages(128)));
    assert_eq!(vm.free_slots(), Pages(2048 - 128));
    vm.pmap.release(&[half], Release::Ballooned);
    assert_eq!(vm.stats().ballooned, Pages(256));
    vm.audit();
    vm.pmap.reset().unwrap();
    let stats = vm.stats();
    assert_eq!((stats.held, stats.compressed, stats.swapped, stats.store), Default::default());
    assert_eq!((stats.chunks_empty, vm.free_slots(), vm.read(100)), (3, Pages(2048), 0));
    fill();
    assert_eq!((get(&vm, 5), vm.read(HIGH.0)), (noise(5), 0));
    vm.audit();
}

#[test]
fn a_fault_on_a_swapped_page_waits_for_a_grant_like_any_other() {
    let vm = paged(3, 64, false, 0, 2048);
    (0..64).for_each(|ppn| put(&vm, ppn, &noise(ppn)));
    take_all(&vm);
    vm.pmap.return_grant(Pages::ZERO);
    let ram = vm.pmap.ram().clone();
    let reader = std::thread::spawn(move || ram.read_obj::<u64>(address(9)).unwrap());
    eventually("the source hears of it", || vm.source.wanted() == Pages(1));
    assert!(!reader.is_finished());
    vm.pmap.add_grant(Pages(1));
    assert_eq!(reader.join().unwrap().to_ne_bytes(), noise(9)[..8]);
    assert_eq!(vm.stats().held, Pages(1));
    vm.audit();
}

#[test]
fn when_pressure_has_passed_chunks_are_large_again() {
    let vm = paged(3, 2048, true, 100, 2048);
    (0..1024).for_each(|ppn| put(&vm, ppn, &if ppn % 2 == 0 { text(9) } else { noise(ppn) }));
    take_all(&vm);
    assert_eq!(vm.pmap.promote(9), 0, "it is not used");
    (0..300).for_each(|ppn| drop(get(&vm, ppn)));
    eventually("what is in the swap has come back", || vm.pmap.promote(9) == 1);
    assert_eq!(
        (vm.stats().chunks_large, vm.stats().chunks_small, vm.stats().held),
        (1, 1, Pages(512) + vm.stats().store)
    );
    vm.audit();
    for ppn in 0..1024 {
        assert_eq!(get(&vm, ppn), if ppn % 2 == 0 { text(9) } else { noise(ppn) });
    }
}

#[test]
fn after_a_write_error_nothing_is_lost_and_nothing_more_is_swapped() {
    let vm = paged(3, 2048, true, 0, 2048);
    (0..512).for_each(|ppn| put(&vm, ppn, &noise(ppn)));
    vm.pmap.vm().content.swap().unwrap().faults().fail_writes(0, 1);
    vm.pmap.page_out(Pages(64));
    eventually("the error is told", || !vm.source.troubles().is_empty());
    vm.pmap.page_out(Pages(100));
    let stuck = vm.pmap.page_out(Pages(100));
    assert!(stuck.stuck && vm.source.troubles().len() == 1, "{stuck:?}");
    assert!(vm.source.troubles()[0].contains("cannot write"));
    vm.audit();
    (0..512).for_each(|ppn| assert_eq!(get(&vm, ppn), noise(ppn), "page {ppn}"));
    vm.audit();
    vm.pmap.reset().unwrap();
    vm.settle();
    assert_eq!(vm.free_slots(), Pages(2048));
}

#[test]
fn a_page_that_cannot_be_read_is_told_and_others_can() {
    let vm = paged(3, 2048, false, 0, 2048);
    (0..64).for_each(|ppn| put(&vm, ppn, &noise(ppn)));
    take_all(&vm);
    vm.pmap.vm().content.swap().unwrap().faults().fail_reads(0, usize::MAX);
    let lost = vm.spawn_write(0, 1);
    eventually("the error is told", || !vm.source.troubles().is_empty());
    assert!(vm.source.troubles()[0].contains("page Ppn(0)"), "{:?}", vm.source.troubles());
    vm.settle();
    vm.pmap.vm().content.swap().unwrap().faults().heal();
    (8..64).for_each(|ppn| assert_eq!(get(&vm, ppn), noise(ppn)));
    vm.audit();
    // The VM would be stopped now; here the waiting threads are released.
    vm.pmap.reset().unwrap();
    lost.join().unwrap();
}

#[test]
fn pages_that_are_named_are_taken_and_no_others() {
    let vm = paged(3, 2048, true, 0, 2048);
    (0..512).for_each(|ppn| put(&vm, ppn, &noise(ppn)));
    let run = |start, pages| PpnRange::new(Ppn(start), Pages(pages));
    let out = vm.pmap.page_out_of(&[run(100, 50), run(300, 1), run(120, 10), run(u64::MAX - 1, 9)]);
    assert_eq!(out, PagedOut { freed: Pages(51), stuck: false });
    vm.settle();
    vm.audit();
    let swapped = |ppn| {
        let chunk = vm.pmap.vm().chunk(crate::address::ChunkNo(0));
        !chunk.served().contains(ppn)
    };
    assert!((0..512).all(|ppn| swapped(ppn) == (ppn == 300 || (100..150).contains(&ppn))));
    (0..512).for_each(|ppn| assert_eq!(get(&vm, ppn), noise(ppn), "page {ppn}"));
    // Faults have just brought them in, which saves them from eviction, but not from a caller that
    // names them.
    vm.settle();
    assert_eq!(vm.pmap.page_out_of(&[run(100, 50)]).freed, Pages(50));
    assert_eq!(vm.pmap.page_out_of(&[run(100, 50), run(512, 512)]), PagedOut::default(), "they are gone");
}

#[test]
fn pages_that_are_named_stay_where_there_is_no_room_or_a_device_uses_them() {
    let vm = paged(3, 2048, false, 0, 10);
    (0..200).for_each(|ppn| put(&vm, ppn, &noise(ppn)));
    let guard = vm.pmap.pin(&[(address(0), Bytes(3 * PAGE_SIZE))], Intent::Use).unwrap();
    let all = PpnRange::new(Ppn(0), Pages(200));
    assert_eq!(vm.pmap.page_out_of(&[all]), PagedOut { freed: Pages(10), stuck: true });
    vm.audit();
    drop(guard);
    (0..200).for_each(|ppn| assert_eq!(get(&vm, ppn), noise(ppn), "page {ppn}"));
}
