use plimsoll_units::{Bytes, CHUNK_PAGES, PAGE_SIZE};

use super::super::interrupt::CONFIG_CHANGE;
use super::super::registers::offset;
use super::super::testing::{DATA, HIGH, HIGH_END, LOW_END, Queue, Rig, WRITE};
use super::*;

const ALL: u64 = bit::MUST_TELL_HOST
    | bit::STATS_VQ
    | bit::DEFLATE_ON_OOM
    | bit::PAGE_REPORTING
    | bit::PAGE_POISON
    | feature::EVENT_IDX;

fn rig() -> (Rig, BalloonHandle) {
    let mut handle = None;
    let rig = Rig::new(|memory, notices| {
        let (balloon, its_handle) =
            Balloon::new("balloon", definition::Balloon::default(), memory, notices).unwrap();
        handle = Some(its_handle);
        balloon
    });
    (rig, handle.unwrap())
}

fn start(rig: &mut Rig, features: u64, queues: usize) -> Vec<Queue> {
    let queues = rig.set_up(features, &QUEUE_SIZES[..queues]);
    rig.go();
    queues
}

fn send(rig: &mut Rig, queue: &mut Queue, ppns: &[u32]) {
    let bytes: Vec<u8> = ppns.iter().flat_map(|ppn| ppn.to_le_bytes()).collect();
    rig.guest.write(DATA, &bytes);
    rig.run(queue, &[(DATA, u32::try_from(bytes.len()).unwrap(), 0)]);
}

fn ppns(address: u64, count: u32) -> Vec<u32> {
    let first = u32::try_from(address / PAGE_SIZE).unwrap();
    (first..first + count).collect()
}

fn touch(rig: &Rig, address: u64, pages: u64) {
    (0..pages).for_each(|page| rig.guest.write(address + page * PAGE_SIZE, &[1]));
}

#[test]
fn the_offer_decides_the_features() {
    let none = features(definition::Balloon { deflate_on_oom: false, free_page_reporting: false });
    assert_eq!(none, feature::COMMON | bit::MUST_TELL_HOST | bit::STATS_VQ);
    assert_eq!(features(definition::Balloon::default()), feature::COMMON | ALL);
}

#[test]
fn a_target_reaches_the_driver_and_its_answer_the_handle() {
    let (mut rig, handle) = rig();
    handle.set_target(Pages(100));
    assert_eq!(rig.get(offset::INTERRUPT_STATUS), 0, "no driver to interrupt yet");
    assert!(!handle.has_driver());
    start(&mut rig, ALL, 4);
    assert!(handle.has_driver());
    assert_eq!(rig.get(offset::CONFIG), 100);
    let generation = rig.get(offset::CONFIG_GENERATION);
    handle.set_target(Pages(u64::MAX));
    assert_eq!(rig.get(offset::INTERRUPT_STATUS), CONFIG_CHANGE);
    assert_ne!(rig.get(offset::CONFIG_GENERATION), generation);
    assert_eq!(rig.get(offset::CONFIG), 3 * 512, "no more than there is");
    rig.set(offset::CONFIG + 4, 77);
    rig.transport.write(offset::CONFIG + 5, &[1]);
    rig.set(offset::CONFIG, 5);
    assert_eq!((handle.actual(), handle.target()), (Pages(77), Pages(3 * 512)));
    rig.set(offset::STATUS, 0);
    assert_eq!((handle.actual(), handle.has_driver()), (Pages::ZERO, false));
    assert_eq!(handle.target(), Pages(3 * 512), "the target is not the driver's to forget");
}

#[test]
fn what_is_written_after_a_deflation_was_acknowledged_stays() {
    let (mut rig, _) = rig();
    let mut queues = start(&mut rig, ALL, 4);
    for round in 1..=20 {
        // One page of a large chunk, or several: gathered for a while either way.
        let pages = ppns(HIGH, round);
        touch(&rig, HIGH, round.into());
        send(&mut rig, &mut queues[0], &pages);
        send(&mut rig, &mut queues[1], &pages);
        let written = (0..u64::from(round)).map(|page| HIGH + page * PAGE_SIZE);
        written.clone().for_each(|address| rig.guest.write(address, &[77]));
        if round % 5 == 0 {
            // Whatever was gathered is given back by now.
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        rig.transport.barrier();
        assert!(written.into_iter().all(|address| rig.guest.read(address, 1) == [77]), "round {round}");
    }
}

#[test]
fn a_guest_that_does_not_tell_may_use_a_page_as_soon_as_it_is_in_the_balloon() {
    let (mut rig, _) = rig();
    let mut queues = start(&mut rig, ALL & !bit::MUST_TELL_HOST, 4);
    touch(&rig, HIGH, 10);
    send(&mut rig, &mut queues[0], &ppns(HIGH, 10));
    assert_eq!(rig.guest.pmap.stats().ballooned, Pages(10), "acknowledged, so released");
    rig.guest.write(HIGH, &[77]);
    // Whatever was gathered is given back by now.
    std::thread::sleep(std::time::Duration::from_millis(300));
    rig.transport.barrier();
    assert_eq!(rig.guest.read(HIGH, 1), [77]);
}

#[test]
fn inflated_pages_are_given_back_and_deflated_ones_come_back_empty() {
    let (mut rig, _) = rig();
    let mut queues = start(&mut rig, ALL, 4);
    touch(&rig, HIGH, CHUNK_PAGES);
    touch(&rig, DATA, 1);
    let before = rig.guest.pmap.stats();
    let all = ppns(HIGH, 512);
    // As Linux does: 256 at a time. The second request completes the chunk.
    send(&mut rig, &mut queues[0], &all[256..]);
    send(&mut rig, &mut queues[0], &all[..256]);
    let inflated = rig.guest.pmap.stats();
    assert_eq!(inflated.ballooned, Pages(512));
    assert_eq!(before.held - inflated.held, Pages(512));
    assert_eq!(inflated.chunks_empty, before.chunks_empty + 1);
    send(&mut rig, &mut queues[1], &all[..300]);
    assert_eq!(rig.guest.pmap.stats().ballooned, Pages(212));
    assert_eq!(rig.guest.read(HIGH, 4096), [0; 4096]);
}

#[test]
fn pages_that_make_no_chunk_follow_after_a_pause() {
    let (mut rig, handle) = rig();
    let mut queues = start(&mut rig, ALL, 4);
    touch(&rig, HIGH, 10);
    send(&mut rig, &mut queues[0], &ppns(HIGH, 10));
    rig.wait_for("the pages in the balloon", |rig| rig.guest.pmap.stats().ballooned == Pages(10));
    assert_eq!(handle.ignored(), Pages::ZERO);
}

#[test]
fn pages_outside_of_memory_are_counted_and_ignored() {
    let (mut rig, handle) = rig();
    let mut queues = start(&mut rig, ALL, 4);
    let outside = |address: u64| u32::try_from(address / PAGE_SIZE).unwrap();
    let inside = outside(HIGH) + 7;
    let wild = [outside(LOW_END), outside(HIGH) - 1, outside(HIGH_END), u32::MAX, inside, inside, inside];
    send(&mut rig, &mut queues[0], &wild);
    send(&mut rig, &mut queues[1], &wild[..4]);
    rig.wait_for("one page in the balloon", |rig| rig.guest.pmap.stats().ballooned == Pages(1));
    assert_eq!(handle.ignored(), Pages(4));
    assert!(!rig.needs_reset());
}

#[test]
fn statistics_are_taken_and_asked_for_again() {
    let (mut rig, handle) = rig();
    let mut queues = start(&mut rig, ALL, 4);
    assert_eq!(handle.guest(), None);
    for (round, free) in [4096u64, 8192, 12288].into_iter().enumerate() {
        let mut pairs = 4u16.to_le_bytes().to_vec();
        pairs.extend(free.to_le_bytes());
        rig.guest.write(DATA, &pairs);
        queues[2].add(&rig.guest, &[(DATA, 10, 0)]);
        rig.kick(&queues[2]);
        rig.wait_for("the statistics", |_| handle.guest().is_some_and(|facts| facts.free == Bytes(free)));
        assert!(round > 0 || queues[2].next_used(&rig.guest).is_none(), "the device keeps the buffer");
        // The device gives the buffer back when it wants to know anew.
        rig.wait_used(&mut queues[2]);
    }
    rig.set(offset::STATUS, 0);
    assert_eq!(handle.guest(), None);
}

#[test]
fn reported_pages_are_given_back_where_they_are_whole() {
    let (mut rig, _) = rig();
    let mut queues = start(&mut rig, ALL, 4);
    touch(&rig, HIGH, CHUNK_PAGES);
    let before = rig.guest.pmap.stats().held;
    let pages = |count: u32| count * 4096;
    rig.run(&mut queues[3], &[(HIGH + 1, pages(3), WRITE), (HIGH + 0x10_0000, pages(256), WRITE)]);
    assert_eq!(before - rig.guest.pmap.stats().held, Pages(258));
    assert_eq!(rig.guest.pmap.stats().ballooned, Pages::ZERO);
    assert_eq!(rig.guest.read(HIGH, 1), [1]);
    assert_eq!(rig.guest.read(HIGH + 4096, 1), [0]);
}

#[test]
fn poisoned_pages_keep_their_content() {
    let (mut rig, _) = rig();
    for (poison, expected) in [(0xaaaa_aaaa_u32, 1u8), (0, 0)] {
        let mut queues = rig.set_up(ALL, QUEUE_SIZES);
        rig.set(offset::CONFIG + 12, poison);
        rig.go();
        touch(&rig, HIGH, CHUNK_PAGES);
        rig.run(&mut queues[3], &[(HIGH, 2 << 20, WRITE)]);
        assert_eq!(rig.guest.read(HIGH, 1), [expected], "poison {poison:#x}");
    }
}

#[test]
fn queues_of_features_that_were_not_agreed_on_are_not_there() {
    // Without statistics, reporting is the third queue.
    let (mut rig, _) = rig();
    let mut queues = start(&mut rig, bit::PAGE_REPORTING, 3);
    touch(&rig, HIGH, CHUNK_PAGES);
    let before = rig.guest.pmap.stats().held;
    rig.run(&mut queues[2], &[(HIGH, 2 << 20, WRITE)]);
    assert_eq!(before - rig.guest.pmap.stats().held, Pages(512));
}

#[test]
fn an_endless_page_list_breaks_the_queue() {
    let (mut rig, _) = rig();
    let mut queues = start(&mut rig, ALL, 4);
    queues[0].add(&rig.guest, &[(0, 4 << 20, 0)]);
    rig.kick(&queues[0]);
    rig.wait_for("the device to stop", Rig::needs_reset);
    assert_eq!(rig.notices.lock().unwrap().len(), 1);
}
