//! Interfaces that are held to a rate, and rates that change.

use std::thread;
use std::time::{Duration, Instant};

use plimsoll_protocol::Burst;
use plimsoll_protocol::control::RateLimit;
use plimsoll_units::Bytes;

use super::*;

/// An interface that is held to `rate`, its cable, and its handle.
fn held(rate: RateLimit) -> (Rig, OwnedFd, NetHandle) {
    with(settings(rate))
}

fn settings(rate: RateLimit) -> NetSettings {
    NetSettings { rate, ..NetSettings::default() }
}

fn packets(n: u64) -> RateLimit {
    RateLimit { operations: Some(n), ..RateLimit::default() }
}

/// The debt of a packet at a byte a second: nothing else would pass for minutes.
const CRAWL: RateLimit = RateLimit { operations: None, bandwidth: Some(Bytes(1)), burst: Burst::SHORTEST };

/// Gives the interface `count` packets to send.
fn transmit(rig: &mut Rig, queue: &mut Queue, count: usize) {
    rig.guest.write(DATA, &packet(600, 7));
    for _ in 0..count {
        queue.add(&rig.guest, &[(DATA, 600, 0)]);
    }
    rig.kick(queue);
}

#[test]
fn both_directions_keep_to_the_rate_and_lose_nothing() {
    let (mut rig, cable, _handle) = held(packets(100));
    let [mut incoming, mut outgoing] = start(&mut rig, feature::EVENT_IDX | bit::MRG_RXBUF);
    let begin = Instant::now();
    transmit(&mut rig, &mut outgoing, 35);
    for _ in 0..35 {
        assert_eq!(receive(&cable).len(), 600);
    }
    // Ten are the burst of a tenth of a second, one goes into debt; the others come one in 10 ms.
    assert!(begin.elapsed() >= Duration::from_millis(235), "{:?}", begin.elapsed());
    let begin = Instant::now();
    for i in 0..35 {
        incoming.add(&rig.guest, &[(HIGH + i * 4096, 1600, WRITE)]);
    }
    rig.kick(&incoming);
    (0..35).for_each(|seed| send(&cable, &packet(600, seed)));
    for _ in 0..35 {
        assert_eq!(rig.wait_used(&mut incoming).1, 600);
    }
    assert!(begin.elapsed() >= Duration::from_millis(235), "{:?}", begin.elapsed());
}

#[test]
fn packets_that_wait_for_a_rate_pass_when_it_rises() {
    for new in [packets(1_000_000), RateLimit::default()] {
        let (mut rig, cable, handle) = held(CRAWL);
        let [mut incoming, mut outgoing] = start(&mut rig, feature::EVENT_IDX | bit::MRG_RXBUF);
        for i in 0..8 {
            incoming.add(&rig.guest, &[(HIGH + i * 4096, 1600, WRITE)]);
        }
        rig.kick(&incoming);
        (0..4).for_each(|seed| send(&cable, &packet(600, seed)));
        assert_eq!(rig.wait_used(&mut incoming).1, 600, "the first one goes into debt");
        transmit(&mut rig, &mut outgoing, 4);
        assert_eq!(receive(&cable).len(), 600);
        thread::sleep(Duration::from_millis(50));
        assert!(!has_come(&cable), "a packet left before its time");
        assert_eq!(incoming.next_used(&rig.guest), None, "a packet arrived before its time");
        handle.set(settings(new));
        for _ in 0..3 {
            assert_eq!(rig.wait_used(&mut incoming).1, 600);
            assert_eq!(receive(&cable).len(), 600);
        }
        assert!(!rig.needs_reset());
    }
}

#[test]
fn a_rate_that_is_set_holds_from_then_on_and_after_a_reset() {
    let (mut rig, cable, handle) = held(RateLimit::default());
    let [_, mut outgoing] = start(&mut rig, 0);
    transmit(&mut rig, &mut outgoing, 50);
    (0..50).for_each(|_| drop(receive(&cable)));
    handle.set(settings(CRAWL));
    // Wishes are taken up before orders.
    rig.transport.barrier();
    transmit(&mut rig, &mut outgoing, 2);
    receive(&cable);
    let [_, mut outgoing] = start(&mut rig, 0);
    transmit(&mut rig, &mut outgoing, 1);
    thread::sleep(Duration::from_millis(50));
    assert!(!has_come(&cable), "a reset of the device pays no debt");
}
