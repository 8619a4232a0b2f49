use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::super::super::registers::offset;
use super::super::connections::{Connections, LISTENER};
use super::super::packet::HOST_CID;
use super::super::testing::{CID, DESERTED};
use super::*;

/// The next line that `end` has to read, without its end.
fn line(end: &UnixStream) -> String {
    end.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut line = String::new();
    BufReader::with_capacity(1, end).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn the_configuration_has_the_guests_identifier() {
    let (mut rig, _host) = device(1);
    assert_eq!((rig.get(offset::CONFIG), rig.get(offset::CONFIG + 4)), (CID, 0));
    assert_eq!(rig.get(offset::DEVICE_ID), 19);
}

#[test]
fn a_program_names_a_port_and_is_told_when_the_guest_has_taken_it() {
    let (mut rig, host) = device(4);
    let mut driver = Driver::start(&mut rig, u64::MAX, 64);
    let mut end = host.client("CONNECT 1024\n");
    // What it says before it is answered arrives, too.
    end.write_all(b"early").unwrap();
    let (request, _) = driver.receive(&mut rig);
    assert_eq!((request.op, request.to_port), (Op::Request.number(), 1024));
    assert!(request.from_port > 1 << 30);
    let mut call = Call::new(1024, request.from_port);
    call.say(&mut rig, &mut driver, Op::Response, 0);
    assert_eq!(line(&end), format!("OK {}", request.from_port));
    assert_eq!(call.hear(&mut rig, &mut driver), (Op::Data, 0, b"early".to_vec()));
    call.send(&mut rig, &mut driver, b"late");
    assert_eq!(read(&mut end, 4), b"late");
}

#[test]
fn a_program_that_the_guest_refuses_is_hung_up() {
    let (mut rig, host) = device(4);
    let mut driver = Driver::start(&mut rig, u64::MAX, 64);
    for _ in 0..10 {
        let end = host.client("CONNECT 7\n");
        let (request, _) = driver.receive(&mut rig);
        Call::new(7, request.from_port).say(&mut rig, &mut driver, Op::Reset, 0);
        assert_eq!(line(&end), "");
    }
    let end = host.client("HELLO 7\n");
    assert_eq!(line(&end), "", "so is one that asks for something else");
    rig.transport.barrier();
    assert!(driver.poll(&mut rig).is_none());
}

#[test]
fn a_program_that_leaves_before_the_answer_is_told_to_the_guest() {
    let (mut rig, host) = device(4);
    let mut driver = Driver::start(&mut rig, u64::MAX, 64);
    let end = host.client("CONNECT 7\n");
    let (request, _) = driver.receive(&mut rig);
    drop(end);
    let (reset, _) = driver.receive(&mut rig);
    assert_eq!((reset.op, reset.from_port, reset.to_port), (Op::Reset.number(), request.from_port, 7));
    // The answer that was under way comes too late.
    let mut call = Call::new(7, request.from_port);
    call.say(&mut rig, &mut driver, Op::Response, 0);
    assert_eq!(call.hear(&mut rig, &mut driver).0, Op::Reset);
}

#[test]
fn a_port_without_a_program_is_refused() {
    let (mut rig, host) = device(4);
    let mut driver = Driver::start(&mut rig, u64::MAX, 64);
    for port in [DESERTED, u32::MAX] {
        let mut call = Call::new(1, port);
        call.say(&mut rig, &mut driver, Op::Request, 0);
        assert_eq!(call.hear(&mut rig, &mut driver).0, Op::Reset);
    }
    assert!(host.taken().is_empty());
}

#[test]
fn an_answer_that_never_comes_is_given_up_and_one_that_comes_late_is_dropped() {
    let asked = Arc::new(AtomicU64::new(0));
    let question = Arc::clone(&asked);
    let dial = Arc::new(move |id, port| {
        question.store(id, Ordering::Relaxed);
        port == 5
    });
    let mut connections = Connections::new(CID, 4, None, dial);
    let now = Instant::now();
    connections.take(&packet(Op::Request, 1, 5), Some(&[]), now);
    let until = connections.deadline().unwrap();
    connections.expire(until - Duration::from_millis(1));
    assert!(!connections.has_packet());
    connections.expire(until);
    let reset = connections.next_packet().unwrap();
    assert_eq!((reset.op, reset.from_port, reset.to_port), (Op::Reset.number(), 5, 1));
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    connections.dialed(asked.load(Ordering::Relaxed), Some(ours.into()));
    assert_eq!(theirs.read(&mut [0; 1]).unwrap(), 0);
    assert!(!connections.has_packet() && connections.deadline().is_none());
    // Where no question can be asked any more there is nothing to wait for.
    connections.take(&packet(Op::Request, 1, 6), Some(&[]), now);
    assert_eq!(connections.next_packet().unwrap().op, Op::Reset.number());
    assert_eq!(connections.deadline(), None);
}

#[test]
fn a_guest_that_does_not_agree_to_an_end_is_told_once_more_and_forgotten() {
    let mut connections = Connections::new(CID, 4, None, Arc::new(|_, _| true));
    let now = Instant::now();
    connections.take(&packet(Op::Request, 1, 5), Some(&[]), now);
    let (ours, theirs) = UnixStream::pair().unwrap();
    connections.dialed(2, Some(ours.into()));
    assert_eq!(connections.next_packet().unwrap().op, Op::Response.number());
    assert_eq!(connections.deadline(), None);
    drop(theirs);
    assert_eq!(connections.read(2, &mut [0; 10], now), None);
    let shutdown = connections.next_packet().unwrap();
    assert_eq!((shutdown.op, shutdown.flags), (Op::Shutdown.number(), end::BOTH));
    let until = connections.deadline().unwrap();
    connections.expire(until);
    assert_eq!(connections.next_packet().unwrap().op, Op::Reset.number());
    assert!(connections.next_packet().is_none() && connections.deadline().is_none());
}

#[test]
fn no_more_connections_than_its_bound_are_there_and_programs_wait_in_line() {
    let (mut rig, host) = device(3);
    let mut driver = Driver::start(&mut rig, u64::MAX, 64);
    let mut calls: Vec<_> =
        (1..=3).map(|guest| Call::begun(&mut rig, &mut driver, &host, (guest, 5))).collect();
    let mut fourth = Call::new(4, 5);
    fourth.say(&mut rig, &mut driver, Op::Request, 0);
    assert_eq!(fourth.hear(&mut rig, &mut driver).0, Op::Reset);
    let _waits = host.client("CONNECT 8\n");
    rig.transport.barrier();
    assert!(driver.poll(&mut rig).is_none());
    let (mut call, _end) = calls.pop().unwrap();
    call.say(&mut rig, &mut driver, Op::Reset, 0);
    assert_eq!(driver.receive(&mut rig).0.to_port, 8);
}

#[test]
fn a_driver_that_has_just_begun_finds_programs_that_have_waited() {
    let (mut rig, host) = device(2);
    let _waits = host.client("CONNECT 8\n");
    let mut driver = Driver::start(&mut rig, u64::MAX, 64);
    let (request, _) = driver.receive(&mut rig);
    assert_eq!((request.from_cid, request.to_port), (HOST_CID, 8));
}

#[test]
fn programs_that_wait_for_a_driver_wait_for_a_time_and_those_that_leave_make_room() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vsock");
    let listener = UnixListener::bind(&path).unwrap();
    let connect = || UnixStream::connect(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut connections = Connections::new(CID, 2, Some(listener.into()), Arc::new(|_, _| true));
    let numbers = |connections: &Connections| -> Vec<_> {
        connections.idle_sources().iter().map(|source| (source.number, source.flags.is_empty())).collect()
    };
    assert_eq!((numbers(&connections), connections.deadline()), (vec![(LISTENER, false)], None));
    let now = Instant::now();
    let (mut first, _second) = (connect(), connect());
    assert!(connections.accept(now).is_none());
    // What they say is left for a driver.
    assert_eq!(numbers(&connections), [(2, true), (3, true)]);
    connections.has_left(3);
    let later = now + Duration::from_secs(1);
    let mut third = connect();
    assert!(connections.accept(later).is_none());
    assert_eq!(numbers(&connections), [(2, true), (4, true)]);
    // Nobody waits for ever, and the queue of the socket never fills.
    connections.expire(connections.deadline().unwrap());
    assert_eq!(
        (first.read(&mut [0; 1]).unwrap(), numbers(&connections)),
        (0, vec![(LISTENER, false), (4, true)])
    );
    third.write_all(b"CONNECT 8\n").unwrap();
    connections.ready(4, later);
    let request = connections.next_packet().unwrap();
    assert_eq!((request.op, request.to_port), (Op::Request.number(), 8));
}

#[test]
fn a_device_without_a_driver_forgets_programs_that_leave() {
    let (mut rig, host) = device(1);
    for _ in 0..20 {
        drop(host.client("CONNECT 7\n"));
    }
    let _waits = host.client("CONNECT 8\n");
    let mut driver = Driver::start(&mut rig, u64::MAX, 64);
    let request = loop {
        // One of the others may be found to have left only now.
        let (request, _) = driver.receive(&mut rig);
        if request.op == Op::Request.number() && request.to_port == 8 {
            break request;
        }
    };
    assert_eq!(request.from_cid, HOST_CID);
}
