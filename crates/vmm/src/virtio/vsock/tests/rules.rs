use plimsoll_protocol::definition::CONNECTION_BUFFER;

use super::super::super::testing::{DATA, WRITE};
use super::super::packet::{HEADER, STREAM};
use super::super::testing::CID;
use super::*;

#[test]
fn packets_with_other_addresses_are_dropped() {
    let (mut rig, host) = device(4);
    let mut driver = Driver::start(&mut rig, u64::MAX, 64);
    let request = packet(Op::Request, 1, 5);
    for (from_cid, to_cid) in
        [(53, 2), (0, 2), (u64::from(CID) | 1 << 32, 2), (CID.into(), 3), (CID.into(), 1)]
    {
        driver.send(&mut rig, Header { from_cid, to_cid, ..request }, &[]);
    }
    rig.transport.barrier();
    assert!(driver.poll(&mut rig).is_none() && host.taken().is_empty());
}

#[test]
fn what_is_about_no_connection_is_answered_with_a_reset_and_a_reset_with_nothing() {
    let (mut rig, _host) = device(4);
    let mut driver = Driver::start(&mut rig, u64::MAX, 64);
    let answer = |rig: &mut Rig, driver: &mut Driver, header: Header| {
        driver.send(rig, header, &[]);
        let (reset, _) = driver.receive(rig);
        assert_eq!((reset.op, reset.from_port, reset.to_port), (Op::Reset.number(), 5, 1), "{header:?}");
        reset.kind
    };
    for op in [Op::Response, Op::Shutdown, Op::Data, Op::CreditUpdate, Op::CreditRequest] {
        assert_eq!(answer(&mut rig, &mut driver, packet(op, 1, 5)), STREAM);
    }
    for op in [0, 8, u16::MAX] {
        answer(&mut rig, &mut driver, Header { op, ..packet(Op::Data, 1, 5) });
    }
    // Sequential packets, which the device does not offer, and what nobody knows.
    for kind in [0, 2, u16::MAX] {
        let answered = answer(&mut rig, &mut driver, Header { kind, ..packet(Op::Request, 1, 5) });
        assert_eq!(answered, kind);
    }
    driver.send(&mut rig, packet(Op::Reset, 1, 5), &[]);
    rig.transport.barrier();
    assert!(driver.poll(&mut rig).is_none());
}

#[test]
fn a_guest_that_breaks_the_rules_of_a_connection_loses_that_one() {
    let (mut rig, host) = device(4);
    let mut driver = Driver::start(&mut rig, u64::MAX, 64);
    let (mut good, mut good_end) = Call::begun(&mut rig, &mut driver, &host, (1, 5));
    let many = CONNECTION_BUFFER + 1;
    let breaches: &[(&str, &[Header])] = &[
        ("a second request", &[packet(Op::Request, 2, 5)]),
        ("an answer that nobody asked for", &[packet(Op::Response, 2, 5)]),
        ("more than it has credit for", &[Header { length: many, ..packet(Op::Data, 2, 5) }]),
        ("data that is not there", &[Header { length: 1 << 31, ..packet(Op::Data, 2, 5) }]),
        ("bytes taken that nobody sent", &[Header { taken: 1, ..packet(Op::CreditUpdate, 2, 5) }]),
        ("an unknown operation", &[Header { op: 99, ..packet(Op::Data, 2, 5) }]),
        (
            "data after its end",
            &[
                Header { flags: end::SEND, ..packet(Op::Shutdown, 2, 5) },
                Header { length: 3, ..packet(Op::Data, 2, 5) },
            ],
        ),
    ];
    for (what, packets) in breaches {
        let (mut bad, mut bad_end) = Call::begun(&mut rig, &mut driver, &host, (2, 5));
        for header in *packets {
            // A length that is beyond all bounds comes without as many bytes.
            let length = header.length.min(many) as usize;
            driver.send(&mut rig, *header, &vec![1; length]);
        }
        assert_eq!(bad.hear(&mut rig, &mut driver).0, Op::Reset, "{what}");
        let mut rest = Vec::new();
        bad_end.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "{what}: {} bytes", rest.len());
        good.send(&mut rig, &mut driver, b"still there");
        assert_eq!(read(&mut good_end, 11), b"still there", "{what}");
    }
    assert!(!rig.needs_reset() && rig.notices.lock().unwrap().is_empty());
}

#[test]
fn a_guest_without_buffers_is_not_read_any_more_until_it_has_some() {
    let (mut rig, host) = device(4);
    let mut queues = rig.set_up(u64::MAX, super::super::QUEUE_SIZES);
    rig.go();
    let (mut transmit, mut receive) = (queues.remove(1), queues.remove(0));
    // Each of these packets, of different ports, wants an answer.
    let ports = |n: u32| (n + 1, n + 1000);
    let add = |rig: &mut Rig, transmit: &mut super::super::super::testing::Queue, n: u32| {
        let at = DATA + 64 * u64::from(n);
        let (guest, port) = ports(n);
        rig.guest.write(at, &packet(Op::Data, guest, port).bytes());
        transmit.add(&rig.guest, &[(at, 44, 0)]);
        rig.kick(transmit);
    };
    let mut sent = 0;
    let mut taken = 0;
    while sent < 1000 {
        // A queue takes 128 at a time.
        if sent - taken < 128 {
            add(&mut rig, &mut transmit, sent);
            sent += 1;
        }
        rig.transport.barrier();
        let before = taken;
        while transmit.next_used(&rig.guest).is_some() {
            taken += 1;
        }
        if sent - taken == 128 && taken == before {
            break;
        }
    }
    assert_eq!(taken, 256, "the device keeps as many answers");
    let room = 2 << 20;
    for n in 0..taken + 128 {
        receive.add(&rig.guest, &[(room + 64 * u64::from(n), 64, WRITE)]);
        rig.kick(&receive);
        let (_, written) = rig.wait_used(&mut receive);
        assert_eq!(written as usize, HEADER);
        let answer = rig.guest.read(room + 64 * u64::from(n), HEADER);
        let answer = Header::read(answer.as_slice().try_into().unwrap());
        assert_eq!((answer.op, (answer.to_port, answer.from_port)), (Op::Reset.number(), ports(n)));
    }
    for _ in 0..128 {
        rig.wait_used(&mut transmit);
    }
    drop(host);
}

#[test]
fn a_short_packet_is_dropped_and_a_buffer_that_takes_none_stops_the_device() {
    let (mut rig, _host) = device(4);
    let mut queues = rig.set_up(u64::MAX, super::super::QUEUE_SIZES);
    rig.go();
    let (mut transmit, mut receive) = (queues.remove(1), queues.remove(0));
    rig.guest.write(DATA, &packet(Op::Data, 1, 5).bytes());
    rig.run(&mut transmit, &[(DATA, 43, 0)]);
    rig.run(&mut transmit, &[(DATA, 44, WRITE)]);
    assert!(!rig.needs_reset());
    receive.add(&rig.guest, &[(DATA + 4096, 44, WRITE)]);
    transmit.add(&rig.guest, &[(DATA, 44, 0)]);
    rig.kick(&transmit);
    rig.transport.barrier();
    assert!(rig.needs_reset());
}

#[test]
fn a_reset_ends_all_connections_and_what_comes_late_is_about_none() {
    let (mut rig, host) = device(100);
    for round in 0..5 {
        let mut driver = Driver::start(&mut rig, u64::MAX, 64);
        let mut begin = |guest| Call::begun(&mut rig, &mut driver, &host, (guest, 5));
        let mut calls: Vec<_> = (1..=60).map(&mut begin).collect();
        for (call, end) in &mut calls {
            // Data is under way in both directions.
            end.write_all(&[round; 5000]).unwrap();
            call.send(&mut rig, &mut driver, &[round; 5000]);
            while let Some((header, data)) = driver.poll(&mut rig) {
                assert!(data.iter().all(|byte| *byte == round), "{header:?}");
            }
        }
        rig.transport.reset();
        for (_, mut end) in calls {
            let mut rest = Vec::new();
            // It fails at the end where the device has not read all.
            end.read_to_end(&mut rest).ok();
            assert_eq!(rest, [round; 5000]);
        }
    }
    super::super::testing::works(&mut rig, &host);
}
