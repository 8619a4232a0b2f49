//! A swap device that is full, slow or broken: only threads that need it wait, only what it lost is
//! lost, and frames, slots and the store's pages add up afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use plimsoll_units::{Pages, Ppn};

use super::harness::{HIGH, Served, eventually, paged};
use super::paging::{get, noise, put, take_all, text};
use crate::address::ChunkNo;
use crate::content::SwapSlot;
use crate::content::swap::engine::Faults;
use crate::mutation::Mutation;
use crate::page::Backing;
use crate::page::PageState;
use crate::{PpnRange, Release};

/// More than all pages of any test here need.
const SLOTS: u64 = 4096;
const GRANT: u64 = 2048;

/// A VM of three chunks, page by page, with pages 0 to `pages` full of noise.
fn noisy(pages: u64, store: u64) -> Served {
    let vm = paged(3, GRANT, false, store, SLOTS);
    (0..pages).for_each(|ppn| put(&vm, ppn, &noise(ppn)));
    vm
}

fn faults(vm: &Served) -> Arc<Faults> {
    vm.pmap.vm().content.swap().unwrap().faults()
}

fn spawn_get(vm: &Served, ppn: u64) -> JoinHandle<Vec<u8>> {
    let ram = vm.pmap.ram().clone();
    std::thread::spawn(move || super::paging::read(&ram, ppn))
}

/// The slots that the pages have, and how many pages are charged.
fn slots_and_charged(vm: &Served) -> (Vec<SwapSlot>, Pages) {
    let mut slots = Vec::new();
    let mut charged = Pages::ZERO;
    for chunk in vm.pmap.vm().chunks.lock_all().iter() {
        charged += chunk.tally().backed;
        let Backing::Small(table) = &chunk.backing else { continue };
        slots.extend(table.states().filter_map(|state| match state {
            PageState::Clean(slot)
            | PageState::Leaving(slot)
            | PageState::Swapped(slot)
            | PageState::Arriving { from: slot, .. } => Some(slot),
            _ => None,
        }));
    }
    (slots, charged)
}

/// Everything is somewhere once, and accounted for.
fn adds_up(vm: &Served) -> Result<(), String> {
    vm.pmap.audit().map_err(|found| found[0].to_string())?;
    let (mut slots, charged) = slots_and_charged(vm);
    let (used, stats) = (slots.len() as u64, vm.stats());
    slots.sort();
    slots.dedup();
    if slots.len() as u64 != used || vm.free_slots() + Pages(used) != Pages(SLOTS) {
        return Err(format!("{used} slots in use, {} distinct, {:?} free", slots.len(), vm.free_slots()));
    }
    let store = vm.pmap.vm().content.store_pages();
    if (stats.store, stats.held) != (store, charged + store) {
        return Err(format!("{charged:?} and {store:?} of the store, but {stats:?}"));
    }
    Ok(())
}

/// The same once all I/O has ended. Writes that have failed hold on to their slots until their
/// pages are touched.
fn adds_up_soon(vm: &Served) {
    eventually("it adds up", || adds_up(vm).is_ok());
    adds_up(vm).unwrap();
}

/// After a reset nothing is left of anything.
fn resets_to_nothing(vm: &Served) -> Result<(), String> {
    vm.pmap.reset().map_err(|error| error.to_string())?;
    vm.settle();
    adds_up(vm)?;
    let stats = vm.stats();
    let left = (stats.held, stats.store, stats.compressed, stats.swapped, vm.free_slots());
    let nothing = (Pages::ZERO, Pages::ZERO, Pages::ZERO, Pages::ZERO, Pages(SLOTS));
    if left == nothing {
        Ok(())
    } else {
        Err(format!("after a reset: {stats:?}, {:?} slots free", vm.free_slots()))
    }
}

#[test]
fn a_device_that_becomes_full_ends_swapping_and_loses_nothing() {
    let vm = noisy(1000, 0);
    vm.pmap.page_out(Pages(100));
    vm.settle();
    faults(&vm).fill();
    vm.pmap.page_out(Pages(100));
    eventually("the error is told", || !vm.source.troubles().is_empty());
    eventually("nothing more is taken", || vm.pmap.page_out(Pages(1)).stuck);
    adds_up_soon(&vm);
    (0..1000).for_each(|ppn| assert_eq!(get(&vm, ppn), noise(ppn), "page {ppn}"));
    // The VM goes on, and has all of its memory.
    (0..1000).for_each(|ppn| put(&vm, ppn, &noise(ppn + 5000)));
    assert_eq!(vm.pmap.page_out(Pages(1)).freed, Pages::ZERO);
    (0..1000).for_each(|ppn| assert_eq!(get(&vm, ppn), noise(ppn + 5000), "page {ppn}"));
    assert_eq!((vm.source.troubles().len(), vm.stats().swapped), (1, Pages::ZERO));
    vm.settle();
    adds_up(&vm).unwrap();
    resets_to_nothing(&vm).unwrap();
}

#[test]
fn after_a_reset_a_device_that_has_failed_is_tried_again() {
    let vm = noisy(200, 0);
    for failures in 1..=2 {
        faults(&vm).fill();
        vm.pmap.page_out(Pages(100));
        eventually("the error is told", || vm.source.troubles().len() == failures);
        assert!(vm.pmap.swap_failed());
        resets_to_nothing(&vm).unwrap();
        faults(&vm).heal();
        assert!(!vm.pmap.swap_failed());
        (0..200).for_each(|ppn| put(&vm, ppn, &noise(ppn)));
        vm.pmap.page_out(Pages(100));
        vm.settle();
        let stats = vm.stats();
        // Pages that were provided with others hold zeros.
        assert!(stats.swapped + stats.zero >= Pages(100), "{stats:?}");
        assert!(stats.swapped > Pages::ZERO, "{stats:?}");
        (0..200).for_each(|ppn| assert_eq!(get(&vm, ppn), noise(ppn), "page {ppn}"));
    }
    assert_eq!(vm.source.troubles().len(), 2);
}

#[test]
fn a_swap_that_is_full_is_no_trouble() {
    let vm = paged(3, GRANT, false, 0, 50);
    // Backwards, so that no page is provided with another.
    (0..200).rev().for_each(|ppn| put(&vm, ppn, &noise(ppn)));
    assert!(vm.pmap.page_out(Pages(200)).stuck);
    vm.settle();
    assert_eq!((vm.stats().held, vm.stats().swapped, vm.free_slots()), (Pages(150), Pages(50), Pages::ZERO));
    (0..200).for_each(|ppn| put(&vm, ppn, &noise(ppn + 1)));
    vm.settle();
    assert_eq!(vm.stats().held, Pages(200));
    assert_eq!(vm.free_slots(), Pages(50), "copies of pages that were written are worth nothing");
    assert!(vm.source.troubles().is_empty());
    vm.audit();
}

#[test]
fn while_writes_hang_pages_on_their_way_can_be_used() {
    let vm = noisy(1000, 0);
    faults(&vm).hold();
    let out = vm.pmap.page_out(Pages(1000));
    assert!(out.stuck && out.freed >= Pages(200), "as much as is buffered: {out:?}");
    // Half of all are read, half are written, all without the device.
    (0..500).for_each(|ppn| assert_eq!(get(&vm, ppn), noise(ppn), "page {ppn}"));
    (500..1000).for_each(|ppn| put(&vm, ppn, &noise(ppn + 5000)));
    assert_eq!(vm.stats().swapped, Pages::ZERO);
    assert!(vm.source.troubles().is_empty(), "slow is not broken");
    faults(&vm).release();
    vm.settle();
    adds_up(&vm).unwrap();
    take_all(&vm);
    (0..1000).for_each(|ppn| assert_eq!(get(&vm, ppn), noise(if ppn < 500 { ppn } else { ppn + 5000 })));
    resets_to_nothing(&vm).unwrap();
}

#[test]
fn while_reads_hang_others_go_on() {
    let vm = noisy(64, 0);
    take_all(&vm);
    faults(&vm).hold();
    let reader = spawn_get(&vm, 5);
    eventually("the read is with the device", || faults(&vm).held() > 0);
    // A page that is not there yet, in the same chunk and in another.
    vm.write(100, 7);
    vm.write(HIGH.0, 8);
    assert_eq!((vm.read(100), vm.read(HIGH.0), reader.is_finished()), (7, 8, false));
    faults(&vm).release();
    assert_eq!(reader.join().unwrap(), noise(5));
    vm.settle();
    adds_up(&vm).unwrap();
    (0..64).for_each(|ppn| assert_eq!(get(&vm, ppn), noise(ppn)));
}

#[test]
fn a_read_that_ends_without_a_signal_is_found() {
    let vm = noisy(64, 0);
    take_all(&vm);
    faults(&vm).hold();
    let reader = spawn_get(&vm, 5);
    eventually("the read is with the device", || faults(&vm).held() > 0);
    faults(&vm).release_silently();
    eventually("the page is there", || reader.is_finished());
    assert_eq!(reader.join().unwrap(), noise(5));
    vm.settle();
    adds_up(&vm).unwrap();
}

/// Pages that are given back while they are read have another life when the read ends.
fn given_back_while_read(mutation: Option<Mutation>) -> Result<(), String> {
    let vm = noisy(64, 0);
    take_all(&vm);
    // A guest that comes from 4 to 5 gets the following ones too.
    assert_eq!(get(&vm, 4), noise(4));
    vm.settle();
    faults(&vm).hold();
    let reader = spawn_get(&vm, 5);
    eventually("the read is with the device", || faults(&vm).held() > 0);
    vm.pmap.mutate(mutation);
    vm.pmap.release(&[PpnRange::new(Ppn(0), Pages(64))], Release::Reported);
    let found = reader.join().unwrap();
    vm.write(6, 66);
    faults(&vm).release();
    vm.settle();
    let is_zero = |ppn| get(&vm, ppn) == [0; 4096];
    if found != [0; 4096] || !(7..64).all(is_zero) || vm.read(6) != 66 {
        return Err("a page that was given back came back".to_owned());
    }
    adds_up(&vm)
}

#[test]
fn a_read_that_ends_late_changes_nothing() {
    given_back_while_read(None).unwrap();
}

#[test]
fn a_bad_sector_is_told_when_its_page_is_needed() {
    let vm = noisy(64, 0);
    take_all(&vm);
    let bad = match &vm.pmap.vm().chunk(ChunkNo(0)).backing {
        Backing::Small(table) => table.get(9),
        _ => panic!("all pages are in the swap"),
    };
    let PageState::Swapped(slot) = bad else { panic!("{bad:?}") };
    faults(&vm).fail_read_at(slot);
    // It is read with 2, because that is touched after 1. Its neighbours do not suffer.
    (1..64).filter(|&ppn| ppn != 9).for_each(|ppn| assert_eq!(get(&vm, ppn), noise(ppn), "page {ppn}"));
    vm.settle();
    assert!(vm.source.troubles().is_empty(), "no fault needed it: {:?}", vm.source.troubles());
    adds_up(&vm).unwrap();
    let lost = spawn_get(&vm, 9);
    eventually("the error is told", || !vm.source.troubles().is_empty());
    assert!(vm.source.troubles()[0].contains("Ppn(9)"), "{:?}", vm.source.troubles());
    vm.settle();
    adds_up(&vm).unwrap();
    assert!(!lost.is_finished());
    // The VM would be stopped now; here the waiting threads are released.
    vm.pmap.reset().unwrap();
    assert_eq!(lost.join().unwrap(), [0; 4096]);
    resets_to_nothing(&vm).unwrap();
}

/// A write that ends late finds its page in use again.
fn touched_while_written(mutation: Option<Mutation>) -> Result<(), String> {
    let vm = noisy(200, 0);
    faults(&vm).hold();
    vm.pmap.page_out(Pages(200));
    (0..200).for_each(|ppn| put(&vm, ppn, &noise(ppn + 5000)));
    vm.pmap.mutate(mutation);
    faults(&vm).release();
    vm.settle();
    adds_up(&vm)?;
    let lost = (0..200).find(|&ppn| get(&vm, ppn) != noise(ppn + 5000));
    lost.map_or(Ok(()), |ppn| Err(format!("page {ppn} is lost")))
}

#[test]
fn a_write_that_ends_late_changes_nothing() {
    touched_while_written(None).unwrap();
}

#[test]
fn completions_that_are_believed_blindly_are_noticed() {
    let failure = given_back_while_read(Some(Mutation::BlindCompletion)).unwrap_err();
    assert!(failure.contains("came back"), "{failure}");
    let failure = touched_while_written(Some(Mutation::BlindCompletion)).unwrap_err();
    assert!(failure.contains("should be absent"), "{failure}");
}

/// Verifies and writes every second page of the RAM below the hole.
struct Writer<'a> {
    vm: &'a Served,
    id: u64,
    generations: Vec<u64>,
}

/// Pages of a writer.
const PAGES: usize = 512;
/// What a writer does before the device breaks, and again afterwards.
const STEPS: u64 = 1000;

impl Writer<'_> {
    fn ppn(&self, page: usize) -> u64 {
        2 * page as u64 + self.id
    }

    /// Some pages shrink, some do not, and some hold nothing.
    fn content(&self, page: usize) -> Vec<u8> {
        let generation = self.generations[page];
        let seed = self.ppn(page) << 32 | generation;
        match seed % 4 {
            _ if generation == 0 => vec![0; 4096],
            0 => vec![0; 4096],
            1 => text(seed),
            _ => noise(seed),
        }
    }

    fn verify(&self, page: usize) -> Result<(), String> {
        let found = get(self.vm, self.ppn(page));
        let as_expected = found == self.content(page);
        if as_expected { Ok(()) } else { Err(format!("page {} is not what was written", self.ppn(page))) }
    }

    fn run(&mut self, from: u64) -> Result<(), String> {
        for step in from..from + STEPS {
            let page = fastrand::usize(..PAGES);
            self.verify(page)?;
            if step % 2 == 0 {
                self.generations[page] = step + 1;
                put(self.vm, self.ppn(page), &self.content(page));
            }
        }
        (0..PAGES).try_for_each(|page| self.verify(page))
    }
}

fn run_both(writers: &mut [Writer<'_>; 2], from: u64) -> Result<(), String> {
    let [one, other] = writers;
    std::thread::scope(|scope| {
        let one = scope.spawn(|| one.run(from));
        other.run(from).and(one.join().unwrap())
    })
}

/// Two writers that verify what they wrote, a thread that takes pages away, and a device that is
/// slow now and then, moves less than it was asked to, and breaks in the end.
#[test]
fn nothing_is_lost_on_a_device_that_is_slow_and_breaks() {
    for breaks in [false, true] {
        let vm = paged(3, GRANT, false, 60, SLOTS);
        let faults = faults(&vm);
        faults.shorten_all();
        let done = AtomicBool::new(false);
        let wait_a_little = || (0..fastrand::u32(..200)).for_each(|_| std::thread::yield_now());
        std::thread::scope(|scope| {
            let pager = || {
                while !done.load(Ordering::SeqCst) {
                    vm.pmap.page_out(Pages(fastrand::u64(1..300)));
                }
            };
            let device = || {
                while !done.load(Ordering::SeqCst) {
                    faults.hold();
                    wait_a_little();
                    faults.release();
                    wait_a_little();
                }
            };
            scope.spawn(pager);
            scope.spawn(device);
            let mut writers = [0, 1].map(|id| Writer { vm: &vm, id, generations: vec![0; PAGES] });
            let result = (0..2).try_for_each(|half| {
                if breaks && half == 1 {
                    // What was written well by then is read after it.
                    faults.fail_writes(10, usize::MAX);
                }
                run_both(&mut writers, half * STEPS)
            });
            done.store(true, Ordering::SeqCst);
            result.unwrap();
        });
        adds_up_soon(&vm);
        assert_eq!(vm.source.troubles().len(), usize::from(breaks), "{:?}", vm.source.troubles());
        resets_to_nothing(&vm).unwrap();
    }
}
