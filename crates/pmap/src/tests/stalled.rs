use std::time::Duration;

use plimsoll_units::{Pages, Ppn};

use super::harness::{eventually, paged, served};
use crate::{PpnRange, Release, Stalled};

const STEP: Duration = Duration::from_millis(20);

#[test]
fn a_fault_that_waits_for_a_grant_is_a_stall_until_it_is_served() {
    let vm = served(3, 1, false);
    vm.pmap.set_tasks(2);
    vm.write(0, 1);
    assert_eq!(vm.pmap.stalled(), Stalled::default(), "the grant covered it");
    let first = vm.spawn_write(1, 2);
    eventually("the source hears of it", || vm.source.wanted() == Pages(1));
    std::thread::sleep(STEP);
    let one = vm.pmap.stalled();
    assert!(one.some >= STEP && one.full == Duration::ZERO, "{one:?}");
    let second = vm.spawn_write(2, 3);
    eventually("the source hears of it", || vm.source.wanted() == Pages(2));
    std::thread::sleep(STEP);
    let both = vm.pmap.stalled();
    assert!(both.full >= STEP && both.some >= one.some + both.full, "{both:?}");
    vm.pmap.add_grant(Pages(2));
    first.join().unwrap();
    second.join().unwrap();
    vm.stats();
    let ended = vm.pmap.stalled();
    std::thread::sleep(STEP);
    assert_eq!(vm.pmap.stalled(), ended);
    vm.audit();
}

#[test]
fn a_fault_that_waits_for_the_swap_is_a_stall() {
    let vm = paged(3, 2048, false, 0, 2048);
    (0..64).for_each(|ppn| vm.write(ppn, ppn + 1));
    while vm.pmap.page_out(Pages(512)).freed > Pages::ZERO {}
    vm.settle();
    assert_eq!((vm.stats().swapped, vm.pmap.stalled()), (Pages(64), Stalled::default()));
    (0..64).for_each(|ppn| assert_eq!(vm.read(ppn), ppn + 1));
    vm.settle();
    vm.stats();
    let ended = vm.pmap.stalled();
    assert!(ended.full > Duration::ZERO && ended.full == ended.some, "{ended:?}");
    std::thread::sleep(STEP);
    assert_eq!(vm.pmap.stalled(), ended);
    vm.audit();
}

#[test]
fn a_page_that_was_given_back_and_is_served_ends_the_stall() {
    let vm = served(3, 0, false);
    let writer = vm.spawn_write(5, 1);
    eventually("the source hears of it", || vm.source.wanted() == Pages(1));
    vm.pmap.release(&[PpnRange::page(Ppn(5))], Release::Reported);
    vm.pmap.add_grant(Pages(1));
    writer.join().unwrap();
    vm.stats();
    let ended = vm.pmap.stalled();
    std::thread::sleep(STEP);
    assert_eq!(vm.pmap.stalled(), ended);
}
