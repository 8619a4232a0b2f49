use std::os::fd::AsFd;

use plimsoll_protocol::control::NetSettings;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::super::registers::offset;
use super::super::testing::{DATA, HIGH, Queue, Rig, WRITE};
use super::*;

mod gate;
mod rates;

/// An interface and the other end of its cable.
fn rig() -> (Rig, OwnedFd) {
    let (rig, cable, _) = with(NetSettings::default());
    (rig, cable)
}

/// The same with `settings`, and its handle.
fn with(settings: NetSettings) -> (Rig, OwnedFd, NetHandle) {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let mut handle = None;
    let rig = Rig::new(|memory, notices| {
        let config = NetConfig { mac: MacAddress([0x52, 1, 2, 3, 4, 5]), settings };
        let net = Net::new("net0", Link::packets(theirs).unwrap(), config, memory, notices).unwrap();
        handle = Some(net.handle());
        net
    });
    (rig, ours, handle.unwrap())
}

fn start(rig: &mut Rig, features: u64) -> [Queue; 2] {
    let queues = rig.set_up(features, QUEUE_SIZES);
    rig.go();
    queues.try_into().unwrap()
}

fn packet(length: usize, seed: u8) -> Vec<u8> {
    let data = (0..=250).map(|step| seed.wrapping_add(step)).cycle().take(length - HEADER);
    [0; HEADER].into_iter().chain(data).collect()
}

fn send(cable: &OwnedFd, packet: &[u8]) {
    assert_eq!(rustix::io::write(cable, packet).unwrap(), packet.len());
}

fn receive(cable: &OwnedFd) -> Vec<u8> {
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(cable.as_fd(), rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 1, "no packet came");
    let mut buffer = vec![0; MAX_PACKET];
    let length = rustix::io::read(cable, &mut buffer[..]).unwrap();
    buffer.truncate(length);
    buffer
}

/// Whether a packet has come out of the cable.
fn has_come(cable: &OwnedFd) -> bool {
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(cable.as_fd(), rustix::event::PollFlags::IN)];
    let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&at_once)).unwrap() > 0
}

#[test]
fn the_configuration_has_the_address() {
    let (mut rig, _cable) = rig();
    let mut mac = [0; 8];
    rig.transport.read(offset::CONFIG, &mut mac);
    assert_eq!(mac, [0x52, 1, 2, 3, 4, 5, 1, 0], "the link is up");
    assert_eq!(rig.offered() & bit::CSUM, 0, "a link that takes no offloads offers none");
}

#[test]
fn packets_leave_as_they_were_framed_and_come_back() {
    let (mut rig, cable) = rig();
    let [_, mut transmit] = start(&mut rig, feature::EVENT_IDX);
    for length in [HEADER, 60, 1514, 9000] {
        let sent = packet(length, 1);
        rig.guest.write(DATA, &sent);
        let length = u32::try_from(length).unwrap();
        rig.run(&mut transmit, &[(DATA, 12, 0), (DATA + 12, length - 12, 0)]);
        assert_eq!(receive(&cable), sent);
    }
}

#[test]
fn packets_that_are_too_short_or_too_long_are_dropped() {
    let (mut rig, cable) = rig();
    let [_, mut transmit] = start(&mut rig, 0);
    rig.run(&mut transmit, &[(DATA, 11, 0)]);
    rig.run(&mut transmit, &[(DATA, 70_000, 0)]);
    rig.run(&mut transmit, &[(DATA, 500, WRITE)]);
    rig.guest.write(DATA, &packet(100, 9));
    rig.run(&mut transmit, &[(DATA, 100, 0)]);
    assert_eq!(receive(&cable), packet(100, 9), "the first to arrive");
}

#[test]
fn received_packets_fill_one_buffer_or_several() {
    let (mut rig, cable) = rig();
    let [mut receive, _] = start(&mut rig, bit::MRG_RXBUF | feature::EVENT_IDX);
    for i in 0..6 {
        receive.add(&rig.guest, &[(HIGH + i * 4096, 1000, WRITE)]);
    }
    rig.kick(&receive);
    let mut sent = packet(2500, 3);
    send(&cable, &sent);
    for length in [1000, 1000, 500] {
        assert_eq!(rig.wait_used(&mut receive).1, length);
    }
    sent[10] = 3;
    let at = |i: u64, length| rig.guest.read(HIGH + i * 4096, length);
    let got = [at(0, 1000), at(1, 1000), at(2, 500)].concat();
    assert_eq!(got, sent);
    send(&cable, &packet(100, 4));
    assert_eq!(rig.wait_used(&mut receive).1, 100);
    assert_eq!(rig.guest.read(HIGH + 3 * 4096 + 10, 2), [1, 0]);
}

#[test]
fn a_packet_without_room_waits_for_buffers() {
    let (mut rig, cable) = rig();
    let [mut receive, _] = start(&mut rig, bit::MRG_RXBUF | feature::EVENT_IDX);
    send(&cable, &packet(1500, 1));
    send(&cable, &packet(200, 2));
    rig.transport.barrier();
    receive.add(&rig.guest, &[(HIGH, 1000, WRITE)]);
    rig.kick(&receive);
    rig.transport.barrier();
    assert!(receive.next_used(&rig.guest).is_none(), "half a packet is none");
    receive.add(&rig.guest, &[(HIGH + 4096, 1000, WRITE)]);
    receive.add(&rig.guest, &[(HIGH + 8192, 1000, WRITE)]);
    rig.kick(&receive);
    let lengths: Vec<_> = (0..3).map(|_| rig.wait_used(&mut receive).1).collect();
    assert_eq!(lengths, [1000, 500, 200]);
}

#[test]
fn without_mergeable_buffers_what_does_not_fit_is_lost() {
    let (mut rig, cable) = rig();
    let [mut receive, _] = start(&mut rig, 0);
    receive.add(&rig.guest, &[(HIGH, 400, WRITE), (HIGH + 4096, 600, WRITE)]);
    rig.kick(&receive);
    send(&cable, &packet(1001, 1));
    send(&cable, &packet(1000, 2));
    assert_eq!(rig.wait_used(&mut receive), (0, 1000));
    let got = [rig.guest.read(HIGH, 400), rig.guest.read(HIGH + 4096, 600)].concat();
    assert_eq!(got[HEADER..], packet(1000, 2)[HEADER..]);
    assert_eq!(got[10..12], [1, 0]);
}

#[test]
fn a_broken_cable_is_told_once_and_the_other_direction_goes_on() {
    let (mut rig, cable) = rig();
    let [_, mut transmit] = start(&mut rig, 0);
    drop(cable);
    for _ in 0..3 {
        rig.run(&mut transmit, &[(DATA, 100, 0)]);
        rig.transport.barrier();
    }
    for _ in 0..3 {
        start(&mut rig, 0);
        rig.transport.barrier();
    }
    let notices = rig.notices.lock().unwrap();
    assert_eq!(notices.len(), 1, "{notices:?}");
}

#[test]
fn bursts_in_both_directions_arrive_whole_and_in_order() {
    let (mut rig, cable) = rig();
    let [mut incoming, mut outgoing] = start(&mut rig, bit::MRG_RXBUF | feature::EVENT_IDX);
    for i in 0..200 {
        incoming.add(&rig.guest, &[(HIGH + i * 4096, 1600, WRITE)]);
    }
    rig.kick(&incoming);
    for i in 0..100u8 {
        send(&cable, &packet(1500, i));
        rig.guest.write(DATA + u64::from(i) * 2048, &packet(1400, i));
        outgoing.add(&rig.guest, &[(DATA + u64::from(i) * 2048, 1400, 0)]);
        rig.kick(&outgoing);
        assert_eq!(receive(&cable), packet(1400, i));
    }
    for i in 0..100u8 {
        assert_eq!(rig.wait_used(&mut incoming).1, 1500);
        assert_eq!(rig.guest.read(HIGH + u64::from(i) * 4096 + 12, 1488), packet(1500, i)[12..]);
    }
}

#[test]
fn what_is_no_tap_is_refused_as_one() {
    let file = tempfile::tempfile().unwrap();
    assert!(Link::tap(file.into()).is_err());
}

#[test]
fn a_tap_device_takes_packets_and_offers_offloads() {
    let Some(tap) = tap::tests::create(libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) else {
        eprintln!("SKIPPED: no tap device here");
        return;
    };
    let mut rig = Rig::new(|memory, notices| {
        let config = NetConfig { mac: MacAddress([2; 6]), settings: NetSettings::default() };
        Net::new("net0", Link::tap(tap).unwrap(), config, memory, notices).unwrap()
    });
    assert_eq!(rig.offered() & (bit::CSUM | bit::HOST_TSO4), bit::CSUM | bit::HOST_TSO4);
    let [_, mut transmit] = start(&mut rig, u64::MAX);
    // The interface is down, so the packet is lost; the buffer comes back all the same.
    rig.run(&mut transmit, &[(DATA, 100, 0)]);
    rig.transport.reset();
    assert!(rig.notices.lock().unwrap().is_empty());
}
