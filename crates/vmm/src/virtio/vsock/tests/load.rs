use std::collections::BTreeMap;
use std::thread;

use plimsoll_protocol::definition::MAX_CONNECTIONS;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

/// Bytes in each direction of the long transfer.
const LONG: u64 = 1 << 30;

#[test]
fn a_thousand_connections_at_a_time_carry_their_own_data() {
    const COUNT: u32 = 1000;
    const EACH: usize = 20_000;
    // Each has both its ends here.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let (mut rig, host) = device(MAX_CONNECTIONS);
    let mut driver = Driver::start(&mut rig, u64::MAX, 128);
    let mut calls = BTreeMap::new();
    let mut ends = Vec::new();
    for guest in 0..COUNT {
        let (call, end) = Call::begun(&mut rig, &mut driver, &host, (guest, 5));
        calls.insert(guest, (call, Vec::new()));
        ends.push(end);
    }
    // Each program says its part and waits for the guest's.
    let programs: Vec<_> = (0u64..)
        .zip(ends)
        .map(|(seed, mut end)| {
            let talk = move || {
                end.write_all(&pattern(seed, 0, EACH)).unwrap();
                assert!(read(&mut end, EACH) == pattern(seed + 5000, 0, EACH), "connection {seed}");
                assert_eq!(end.read(&mut [0; 1]).unwrap(), 0);
            };
            // Their stacks are small: there are a thousand.
            thread::Builder::new().stack_size(64 << 10).spawn(talk).unwrap()
        })
        .collect();
    for guest in 0..COUNT {
        let (call, _) = calls.get_mut(&guest).unwrap();
        let data = pattern(u64::from(guest) + 5000, 0, EACH);
        call.send(&mut rig, &mut driver, &data);
        call.say(&mut rig, &mut driver, Op::Shutdown, end::SEND);
    }
    let mut over = 0;
    while over < COUNT {
        let (header, data) = driver.receive(&mut rig);
        let (call, got) = calls.get_mut(&header.to_port).unwrap();
        call.heed(header, &data);
        got.extend(data);
        match Op::of(header.op).unwrap() {
            // The guest has ended its direction, so both are at an end.
            Op::Shutdown => {
                assert_eq!(header.flags, end::BOTH);
                assert!(*got == pattern(header.to_port.into(), 0, EACH), "connection {}", header.to_port);
                call.say(&mut rig, &mut driver, Op::Reset, 0);
                over += 1;
            }
            op => assert!([Op::Data, Op::CreditUpdate].contains(&op), "{op:?}"),
        }
    }
    programs.into_iter().for_each(|program| program.join().unwrap());
    assert!(!rig.needs_reset() && rig.notices.lock().unwrap().is_empty());
}

#[test]
fn a_long_stream_arrives_whole_in_both_directions() {
    const PIECE: usize = 64 << 10;
    let (mut rig, host) = device(4);
    let mut driver = Driver::start(&mut rig, u64::MAX, 128);
    let (mut call, end) = Call::begun(&mut rig, &mut driver, &host, (9, 5));
    let (mut reads, mut writes) = (end.try_clone().unwrap(), end);
    let reader = thread::spawn(move || {
        for at in (0..LONG).step_by(PIECE) {
            assert!(read(&mut reads, PIECE) == pattern(1, at, PIECE), "from {at}");
        }
    });
    let writer = thread::spawn(move || {
        for at in (0..LONG).step_by(PIECE) {
            writes.write_all(&pattern(2, at, PIECE)).unwrap();
        }
    });
    let (mut sent, mut got, mut told) = (0, 0, 0);
    while sent < LONG || got < LONG {
        let before = (sent, got);
        let room = call.room().min(usize::try_from(LONG - sent).unwrap());
        if room > 0 {
            call.send(&mut rig, &mut driver, &pattern(1, sent, room));
            sent += room as u64;
        }
        while let Some((header, data)) = driver.poll(&mut rig) {
            call.heed(header, &data);
            assert!(data == pattern(2, got, data.len()), "from {got}");
            got += data.len() as u64;
        }
        if got - told >= 256 << 10 {
            call.say(&mut rig, &mut driver, Op::CreditUpdate, 0);
            told = got;
        }
        if (sent, got) == before {
            thread::yield_now();
        }
    }
    reader.join().unwrap();
    writer.join().unwrap();
}
