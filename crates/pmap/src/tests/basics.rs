use plimsoll_units::{Bytes, Pages, Ppn};
use vm_memory::GuestAddress;

use super::harness::{HIGH, address, eventually, served};
use crate::address::ChunkNo;
use crate::mutation::Mutation;
use crate::{Error, Inflation, Intent, PpnRange, Release, ReleaseOutcome};

fn range(start: u64, pages: u64) -> PpnRange {
    PpnRange::new(Ppn(start), Pages(pages))
}

#[test]
fn untouched_memory_is_zero_and_costs_nothing() {
    let vm = served(4, 2048, true);
    assert_eq!(vm.stats().held, Pages::ZERO);
    assert_eq!(vm.read(5), 0);
    assert_eq!(vm.read(HIGH.0 + 511), 0);
    let stats = vm.stats();
    assert_eq!((stats.held, stats.chunks_large, stats.chunks_empty), (Pages(1024), 2, 2));
    vm.audit();
}

#[test]
fn without_huge_pages_each_page_is_charged_alone() {
    let vm = served(4, 2048, false);
    vm.write(5, 7);
    assert_eq!(vm.read(6), 0, "a page that is only read");
    vm.write(6, 8);
    assert_eq!((vm.read(5), vm.read(6)), (7, 8));
    assert_eq!(vm.stats().held, Pages(2));
    vm.audit();
}

#[test]
fn pages_written_in_order_come_in_runs() {
    let vm = served(4, 2048, false);
    (0..256).for_each(|ppn| vm.write(ppn, ppn + 1));
    (0..256).for_each(|ppn| assert_eq!(vm.read(ppn), ppn + 1));
    let stats = vm.stats();
    assert!(stats.faults < 30 && (256..256 + 16).contains(&stats.held.0), "{stats:?}");
    vm.audit();
    // A page here and there comes alone, and so does one for which the grant leaves nothing else.
    let scattered = served(4, 2048, false);
    (0..64).for_each(|n| scattered.write(7 * n, n));
    assert_eq!((scattered.stats().held, scattered.stats().faults), (Pages(64), 64));
    let full = served(4, 3, false);
    (0..3).for_each(|ppn| full.write(ppn, 1));
    assert_eq!(full.stats().held, Pages(3));
    full.audit();
}

#[test]
fn a_fault_beyond_the_grant_waits_and_others_do_not() {
    let vm = served(4, 512, true);
    vm.write(0, 1);
    let waiter = vm.spawn_write(512, 2);
    eventually("the source hears of the wait", || vm.source.wanted() == Pages(512));
    vm.write(1, 3);
    assert!(!waiter.is_finished());
    assert_eq!(vm.stats().held, Pages(512));
    vm.pmap.add_grant(Pages(512));
    waiter.join().unwrap();
    assert_eq!((vm.read(512), vm.source.wanted()), (2, Pages::ZERO));
    vm.audit();
}

#[test]
fn with_less_than_a_chunk_granted_a_chunk_becomes_small() {
    let vm = served(4, 100, true);
    let waiter = vm.spawn_write(3, 2);
    eventually("the source hears of the wait", || vm.source.wanted() == Pages(412));
    vm.pmap.add_grant(Pages::ZERO);
    waiter.join().unwrap();
    let stats = vm.stats();
    assert_eq!((stats.held, stats.chunks_small), (Pages(1), 1));
    vm.audit();
}

#[test]
fn a_release_serves_who_waits() {
    let vm = served(4, 512, true);
    vm.write(0, 1);
    let waiter = vm.spawn_write(512, 2);
    eventually("the source hears of the wait", || vm.source.wanted() == Pages(512));
    vm.pmap.release(&[range(0, 512)], Release::Reported);
    waiter.join().unwrap();
    assert_eq!((vm.stats().held, vm.source.wanted()), (Pages(512), Pages::ZERO));
    vm.audit();
}

#[test]
fn a_grant_is_returned_except_for_what_is_held() {
    let vm = served(4, 2048, true);
    vm.write(0, 1);
    assert_eq!(vm.pmap.return_grant(Pages(100)), Pages(2048 - 612));
    assert_eq!((vm.stats().grant, vm.stats().held), (Pages(612), Pages(512)));
}

#[test]
fn part_of_a_large_chunk_breaks_it_up_and_the_rest_keeps_its_content() {
    let vm = served(4, 2048, true);
    (0..512).for_each(|ppn| vm.write(ppn, ppn + 1));
    let outcome = vm.pmap.release(&[range(100, 50), range(10, 1), range(120, 80)], Release::Ballooned);
    assert_eq!(outcome, ReleaseOutcome { freed: Pages(101), ..Default::default() });
    let stats = vm.stats();
    assert_eq!((stats.held, stats.ballooned, stats.chunks_small), (Pages(411), Pages(101), 1));
    vm.audit();
    for ppn in 0..512 {
        let released = ppn == 10 || (100..200).contains(&ppn);
        assert_eq!(vm.read(ppn), if released { 0 } else { ppn + 1 });
    }
    assert_eq!(vm.stats().ballooned, Pages::ZERO, "touched pages have left the balloon");
    vm.audit();
}

#[test]
fn a_touch_pops_one_page_of_a_ballooned_chunk() {
    let vm = served(4, 2048, true);
    vm.write(0, 1);
    vm.pmap.release(&[range(0, 512)], Release::Ballooned);
    assert_eq!((vm.stats().held, vm.stats().ballooned), (Pages::ZERO, Pages(512)));
    assert_eq!(vm.read(0), 0);
    assert_eq!((vm.stats().held, vm.stats().ballooned), (Pages(1), Pages(511)));
    vm.pmap.deflate(&[range(0, 512)]);
    assert_eq!(vm.stats().ballooned, Pages::ZERO);
    vm.pmap.release(&[range(0, 1)], Release::Reported);
    assert_eq!(vm.stats().chunks_empty, 4);
    vm.write(0, 1);
    assert_eq!(vm.stats().chunks_large, 1, "an emptied chunk can be large again");
    vm.audit();
}

#[test]
fn single_pages_of_one_chunk_gather_into_an_empty_chunk() {
    let vm = served(4, 2048, true);
    vm.write(0, 1);
    vm.write(512, 1);
    let mut inflation = Inflation::new(vm.pmap.clone());
    let page = |i: u64| Ppn((i * 77) % 512);
    let first: Vec<_> = (0..256).map(page).chain([Ppn(512), Ppn(u64::MAX)]).collect();
    let second: Vec<_> = (256..512).map(page).collect();
    assert_eq!(inflation.inflate(&first), ReleaseOutcome { ignored: Pages(1), ..Default::default() });
    assert_eq!((vm.stats().chunks_large, inflation.pending()), (2, Pages(257)));
    assert_eq!(inflation.inflate(&second).freed, Pages(512));
    assert_eq!((vm.stats().chunks_empty, vm.stats().chunks_small), (3, 0));
    inflation.deflate(&[Ppn(512), Ppn(3)]);
    assert_eq!(inflation.flush(), ReleaseOutcome::default());
    assert_eq!((vm.stats().ballooned, vm.stats().chunks_large), (Pages(511), 1));
    vm.audit();
}

#[test]
fn pages_under_io_stay() {
    let vm = served(4, 2048, true);
    let pin = |ppn: u64, len| vm.pmap.pin(&[(address(ppn), Bytes(len))], Intent::Use).unwrap();
    let guard = pin(511, 8192);
    let again = pin(511, 1);
    vm.write(511, 9);
    let outcome = vm.pmap.release(&[range(0, 1024)], Release::Ballooned);
    assert_eq!(outcome.busy, Pages(2));
    assert_eq!((vm.read(511), vm.stats().held), (9, Pages(2)));
    assert!(matches!(vm.pmap.reset(), Err(Error::IoInFlight { chunks: 2 })));
    drop(guard);
    assert_eq!(vm.pmap.release(&[range(511, 2)], Release::Ballooned).busy, Pages(1));
    drop(again);
    assert_eq!(vm.pmap.release(&[range(511, 1)], Release::Ballooned).busy, Pages::ZERO);
    assert_eq!((vm.stats().held, vm.stats().ballooned), (Pages::ZERO, Pages(1024)));
    vm.audit();
}

#[test]
fn what_a_device_uses_of_a_large_chunk_is_there_before_the_chunk_can_be_broken_up() {
    let vm = served(3, 512, true);
    vm.write(0, 1);
    assert_eq!(vm.stats().chunks_large, 1);
    let memory = &vm.pmap.vm().memory;
    // As if the kernel had found small pages only.
    memory.discard(ChunkNo(0), (100, 1)).unwrap();
    let ranges = [100, 600].map(|ppn| (address(ppn), Bytes(1)));
    let request = vm.pmap.pin_request(&ranges, Intent::Use).unwrap().try_pin().unwrap_err();
    assert!(request.has_begun(), "page 600 is missing");
    assert!(memory.backed(ChunkNo(0)).unwrap().contains(100));
    vm.pmap.add_grant(Pages(512));
    drop(request.wait());
    vm.audit();
}

#[test]
fn what_a_device_uses_of_a_chunk_that_becomes_large_for_it_is_there() {
    let vm = served(3, 512, true);
    let ranges = [100, 600].map(|ppn| (address(ppn), Bytes(1)));
    let request = vm.pmap.pin_request(&ranges, Intent::Use).unwrap().try_pin().unwrap_err();
    assert!(request.has_begun(), "page 600 is missing");
    assert_eq!(vm.stats().chunks_large, 1);
    assert!(vm.pmap.vm().memory.backed(ChunkNo(0)).unwrap().contains(100));
    vm.pmap.add_grant(Pages(512));
    drop(request.wait());
    vm.audit();
}

#[test]
fn a_pin_that_has_to_wait_comes_back() {
    let vm = served(4, 100, false);
    let pin = |ppn: u64, pages: u64| {
        vm.pmap.pin_request(&[(address(ppn), Bytes(pages * 4096))], Intent::Overwrite).unwrap()
    };
    assert_eq!(vm.pmap.most_pinned(), Pages(32));
    let first = pin(0, 31).try_pin().unwrap();
    let second = pin(40, 2).try_pin().unwrap_err();
    assert!(!second.has_begun(), "more than devices may pin together");
    drop(first);
    drop(second.try_pin().unwrap());
    (100..167).for_each(|ppn| vm.write(ppn, 1));
    assert_eq!(vm.stats().held, vm.stats().grant);
    let third = pin(600, 8).try_pin().unwrap_err();
    assert!(third.has_begun());
    assert_eq!(vm.source.wanted(), Pages(8), "all of it is asked for at once");
    assert_eq!(vm.pmap.release(&[range(600, 8)], Release::Ballooned).busy, Pages(8), "locked already");
    vm.pmap.add_grant(Pages(8));
    drop(third.try_pin().unwrap());
    let alone = pin(600, 60);
    vm.pmap.add_grant(Pages(60));
    drop(alone.wait());
    vm.audit();
}

#[test]
fn pins_wait_for_their_turn() {
    let vm = served(4, 200, false);
    let pin = |ppn: u64, pages: u64| {
        vm.pmap.pin_request(&[(address(ppn), Bytes(pages * 4096))], Intent::Overwrite).unwrap()
    };
    let first = pin(0, 40).try_pin().unwrap();
    let large = pin(512, 45);
    let waiting = std::thread::spawn(move || large.wait());
    // Small ones would fit beside the first, and keep the large one waiting for ever.
    eventually("the large one to wait", || pin(100, 1).try_pin().is_err());
    assert!(!waiting.is_finished());
    drop(first);
    drop(waiting.join().unwrap());
    drop(pin(100, 1).try_pin().unwrap());
    vm.audit();
}

#[test]
fn only_ram_can_be_pinned() {
    let vm = served(4, 2048, true);
    for (address, length) in [(3 * 512 * 4096 - 1, 2), (3 * 512 * 4096, 1), (u64::MAX, 1), (0, u64::MAX)] {
        let pinned =
            vm.pmap.pin(&[(GuestAddress(0), Bytes(1)), (GuestAddress(address), Bytes(length))], Intent::Use);
        assert!(matches!(pinned, Err(Error::OutsideRam { .. })), "{address:#x} {length}");
    }
    assert_eq!(vm.stats().held, Pages::ZERO);
}

#[test]
fn a_reset_leaves_zeros_and_nothing_held() {
    let vm = served(4, 1024, true);
    vm.write(0, 1);
    vm.write(600, 2);
    vm.pmap.release(&[range(512, 20)], Release::Ballooned);
    assert!(vm.pmap.reset().is_ok());
    let stats = vm.stats();
    assert_eq!((stats.held, stats.ballooned, stats.chunks_empty), (Pages::ZERO, Pages::ZERO, 4));
    vm.audit();
    assert_eq!((vm.read(0), vm.read(600)), (0, 0));
}

#[test]
fn regions_are_contiguous_on_the_host() {
    let vm = served(4, 1024, true);
    let hosts: Vec<_> = vm.pmap.regions().map(|region| region.host() as usize).collect();
    assert_eq!(hosts.len(), 2);
    assert!(hosts.iter().all(|host| host.is_multiple_of(2 << 20)));
    assert_eq!(hosts[1] - hosts[0], 3 << 21);
}

#[test]
fn a_chunk_that_is_not_charged_is_noticed() {
    let vm = served(4, 2048, true);
    vm.pmap.mutate(Some(Mutation::UnchargedLarge));
    vm.write(0, 1);
    assert!(vm.pmap.audit().is_err());
}
