//! Cables that are unplugged, and packets of addresses that are not the guest's.

use plimsoll_protocol::control::RateLimit;
use plimsoll_protocol::{Burst, LinkState};

use super::super::super::interrupt::{CONFIG_CHANGE, USED_BUFFER};
use super::*;

const DOWN: NetSettings = NetSettings {
    link: LinkState::Down,
    mac_filter: false,
    rate: RateLimit { operations: None, bandwidth: None, burst: Burst::SHORTEST },
};

/// Whether the guest is shown that the link is up.
fn is_up(rig: &mut Rig) -> bool {
    let mut status = [0; 2];
    rig.transport.read(offset::CONFIG + 6, &mut status);
    status == [1, 0]
}

/// A packet whose source address ends with `last`.
fn from(last: u8) -> Vec<u8> {
    [&[0; HEADER][..], &[0xff; 6], &[0x52, 1, 2, 3, 4, last], &[8, 6, 1, 2, 3, 4]].concat()
}

fn transmit(rig: &mut Rig, queue: &mut Queue, packet: &[u8]) {
    rig.guest.write(DATA, packet);
    rig.run(queue, &[(DATA, u32::try_from(packet.len()).unwrap(), 0)]);
}

#[test]
fn an_unplugged_cable_loses_what_both_sides_send_and_the_guest_is_told_each_time() {
    let (mut rig, cable, handle) = with(NetSettings::default());
    assert_eq!(rig.offered() & bit::STATUS, bit::STATUS);
    let [mut incoming, mut outgoing] = start(&mut rig, feature::EVENT_IDX | bit::MRG_RXBUF);
    for i in 0..8 {
        incoming.add(&rig.guest, &[(HIGH + i * 4096, 1600, WRITE)]);
    }
    rig.kick(&incoming);
    for round in 0..3 {
        assert!(is_up(&mut rig));
        transmit(&mut rig, &mut outgoing, &packet(100, round));
        assert_eq!(receive(&cable), packet(100, round));
        rig.set(offset::INTERRUPT_ACK, USED_BUFFER | CONFIG_CHANGE);
        let generation = rig.get(offset::CONFIG_GENERATION);
        handle.set(DOWN);
        rig.wait_for("the guest is told", |rig| rig.get(offset::INTERRUPT_STATUS) & CONFIG_CHANGE != 0);
        assert!(!is_up(&mut rig) && rig.get(offset::CONFIG_GENERATION) != generation);
        // More than the device takes at a time.
        (0..100).for_each(|seed| send(&cable, &packet(200, seed)));
        transmit(&mut rig, &mut outgoing, &packet(300, 7));
        rig.transport.barrier();
        rig.transport.barrier();
        rig.set(offset::INTERRUPT_ACK, USED_BUFFER | CONFIG_CHANGE);
        handle.set(NetSettings::default());
        rig.wait_for("the guest is told", |rig| rig.get(offset::INTERRUPT_STATUS) & CONFIG_CHANGE != 0);
        assert!(!has_come(&cable), "nothing left");
        send(&cable, &packet(400, round));
        assert_eq!(rig.wait_used(&mut incoming).1, 400, "the first to arrive");
    }
}

#[test]
fn a_cable_may_be_unplugged_from_the_beginning_and_a_reset_does_not_plug_it_in() {
    let (mut rig, cable, handle) = with(DOWN);
    for _ in 0..2 {
        let [_, mut outgoing] = start(&mut rig, 0);
        assert!(!is_up(&mut rig));
        transmit(&mut rig, &mut outgoing, &packet(100, 1));
        assert!(!has_come(&cable));
    }
    handle.set(NetSettings::default());
    rig.transport.barrier();
    let [_, mut outgoing] = start(&mut rig, 0);
    transmit(&mut rig, &mut outgoing, &packet(100, 2));
    assert_eq!(receive(&cable), packet(100, 2));
}

#[test]
fn packets_that_wait_for_their_rate_are_lost_with_the_cable() {
    let crawl = RateLimit { bandwidth: Some(plimsoll_units::Bytes(1)), ..RateLimit::default() };
    let (mut rig, cable, handle) = with(NetSettings { rate: crawl, ..NetSettings::default() });
    let [_, mut outgoing] = start(&mut rig, feature::EVENT_IDX);
    transmit(&mut rig, &mut outgoing, &packet(100, 1));
    assert_eq!(receive(&cable), packet(100, 1));
    outgoing.add(&rig.guest, &[(DATA, 100, 0)]);
    rig.kick(&outgoing);
    handle.set(NetSettings { rate: crawl, ..DOWN });
    rig.wait_used(&mut outgoing);
    assert!(!has_come(&cable));
    assert!(!rig.needs_reset());
}

#[test]
fn what_was_lost_without_a_cable_is_not_made_up_for_with_one() {
    let slow = RateLimit { operations: Some(1), burst: Burst::SHORTEST, ..RateLimit::default() };
    let (mut rig, cable, handle) = with(NetSettings { rate: slow, ..DOWN });
    let [_, mut outgoing] = start(&mut rig, feature::EVENT_IDX);
    for _ in 0..100 {
        transmit(&mut rig, &mut outgoing, &packet(100, 1));
    }
    handle.set(NetSettings { rate: slow, ..NetSettings::default() });
    rig.wait_for("the cable is plugged in", is_up);
    // A hundred packets at one a second would have to be waited for.
    transmit(&mut rig, &mut outgoing, &packet(100, 2));
    assert_eq!(receive(&cable), packet(100, 2));
}

#[test]
fn a_driver_that_looks_at_the_link_before_it_is_ready_hears_of_what_has_changed_since() {
    let (mut rig, _cable, handle) = with(NetSettings::default());
    rig.set_up(0, QUEUE_SIZES);
    assert!(is_up(&mut rig));
    let generation = rig.get(offset::CONFIG_GENERATION);
    handle.set(DOWN);
    rig.wait_for("the cable is unplugged", |rig| !is_up(rig));
    assert_eq!(rig.get(offset::INTERRUPT_STATUS), 0, "there is no driver to interrupt");
    rig.go();
    rig.wait_for("its driver is told", |rig| rig.get(offset::INTERRUPT_STATUS) & CONFIG_CHANGE != 0);
    assert_ne!(rig.get(offset::CONFIG_GENERATION), generation);
}

#[test]
fn a_filter_drops_and_counts_what_is_not_from_the_guest() {
    let (mut rig, cable, handle) = with(NetSettings { mac_filter: true, ..NetSettings::default() });
    let [_, mut outgoing] = start(&mut rig, 0);
    for packet in [from(6), from(5), from(7), packet(HEADER, 0)] {
        transmit(&mut rig, &mut outgoing, &packet);
    }
    assert_eq!(receive(&cable), from(5), "the first to arrive");
    assert!(!has_come(&cable));
    assert_eq!(handle.filtered(), 3);
    handle.set(NetSettings::default());
    rig.transport.barrier();
    transmit(&mut rig, &mut outgoing, &from(6));
    assert_eq!((receive(&cable), handle.filtered()), (from(6), 3));
}
