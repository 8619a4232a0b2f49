use plimsoll_protocol::definition::CONNECTION_BUFFER;

use super::super::testing::ROOM;
use super::*;

/// Sends what seed 1 makes until there is no room. Returns how many bytes that was.
fn fill(rig: &mut Rig, driver: &mut Driver, call: &mut Call) -> usize {
    let mut sent = 0;
    loop {
        rig.transport.barrier();
        while let Some((header, data)) = driver.poll(rig) {
            call.heed(header, &data);
        }
        let data = pattern(1, sent as u64, call.room().min(10_000));
        if data.is_empty() {
            return sent;
        }
        call.send(rig, driver, &data);
        sent += data.len();
    }
}

#[test]
fn each_half_ends_without_the_other() {
    let (mut rig, host) = device(4);
    let mut driver = Driver::start(&mut rig, u64::MAX, 64);
    // The guest ends first.
    let (mut call, mut end) = Call::begun(&mut rig, &mut driver, &host, (9, 5));
    call.send(&mut rig, &mut driver, b"all");
    call.say(&mut rig, &mut driver, Op::Shutdown, end::SEND);
    let mut got = Vec::new();
    end.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"all");
    end.write_all(b"reply").unwrap();
    assert_eq!(call.hear(&mut rig, &mut driver), (Op::Data, 0, b"reply".to_vec()));
    drop(end);
    assert_eq!(call.hear(&mut rig, &mut driver), (Op::Shutdown, end::BOTH, vec![]));
    call.say(&mut rig, &mut driver, Op::Reset, 0);
    // The host ends first.
    let (mut call, mut end) = Call::begun(&mut rig, &mut driver, &host, (9, 6));
    end.write_all(b"all").unwrap();
    end.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(call.hear(&mut rig, &mut driver), (Op::Data, 0, b"all".to_vec()));
    assert_eq!(call.hear(&mut rig, &mut driver), (Op::Shutdown, end::SEND, vec![]));
    call.send(&mut rig, &mut driver, b"reply");
    assert_eq!(read(&mut end, 5), b"reply");
    call.say(&mut rig, &mut driver, Op::Shutdown, end::BOTH);
    assert_eq!(call.hear(&mut rig, &mut driver).0, Op::Reset);
    assert_eq!(end.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn what_the_guest_sent_arrives_although_it_ends_and_forgets_the_connection() {
    let (mut rig, host) = device(1);
    let mut driver = Driver::start(&mut rig, u64::MAX, 64);
    let (mut call, mut end) = Call::begun(&mut rig, &mut driver, &host, (9, 5));
    let sent = fill(&mut rig, &mut driver, &mut call);
    assert!(sent > CONNECTION_BUFFER as usize);
    call.say(&mut rig, &mut driver, Op::Shutdown, end::BOTH);
    call.say(&mut rig, &mut driver, Op::Reset, 0);
    let mut second = Call::new(9, 5);
    second.say(&mut rig, &mut driver, Op::Request, 0);
    // The place is taken until the program has read all.
    assert_eq!(second.hear(&mut rig, &mut driver).0, Op::Reset);
    let mut got = Vec::new();
    end.read_to_end(&mut got).unwrap();
    assert!(got == pattern(1, 0, got.len()) && got.len() == sent);
    rig.wait_for("the place to be free", |rig| {
        second.say(rig, &mut driver, Op::Request, 0);
        second.hear(rig, &mut driver).0 == Op::Response
    });
}

#[test]
fn a_program_that_does_not_read_stops_its_own_connection_only() {
    let (mut rig, host) = device(4);
    let mut driver = Driver::start(&mut rig, u64::MAX, 64);
    let (mut stuck, mut reads_later) = Call::begun(&mut rig, &mut driver, &host, (1, 5));
    let (mut other, mut reads) = Call::begun(&mut rig, &mut driver, &host, (2, 5));
    let given = fill(&mut rig, &mut driver, &mut stuck);
    for round in 0..100 {
        other.send(&mut rig, &mut driver, &pattern(2, round, 1000));
        assert_eq!(read(&mut reads, 1000), pattern(2, round, 1000));
        reads.write_all(b"got it").unwrap();
        loop {
            let (op, _, data) = other.hear(&mut rig, &mut driver);
            if op == Op::Data {
                assert_eq!(data, b"got it");
                break;
            }
        }
    }
    assert_eq!(stuck.room(), 0);
    assert!(read(&mut reads_later, given) == pattern(1, 0, given));
    rig.wait_for("room again", |rig| {
        while let Some((header, data)) = driver.poll(rig) {
            stuck.heed(header, &data);
        }
        stuck.room() >= CONNECTION_BUFFER as usize / 2
    });
}

#[test]
fn a_guest_that_does_not_read_stops_its_own_connection_only() {
    let (mut rig, host) = device(4);
    let mut driver = Driver::start(&mut rig, u64::MAX, 64);
    let (mut stuck, mut writes_much) = Call::begun(&mut rig, &mut driver, &host, (1, 5));
    let (mut other, mut writes) = Call::begun(&mut rig, &mut driver, &host, (2, 5));
    // Its buffer has room for 20000 bytes, and none of them leave it.
    let credit = Header { buffer: 20_000, ..packet(Op::CreditUpdate, 1, 5) };
    driver.send(&mut rig, credit, &[]);
    writes_much.set_nonblocking(true).unwrap();
    while writes_much.write(&[7; 4096]).is_ok() {}
    let mut got = 0;
    while got < 20_000 {
        let (op, _, data) = stuck.hear(&mut rig, &mut driver);
        assert_eq!(op, Op::Data);
        assert!(data.len() as u64 <= ROOM && data.iter().all(|byte| *byte == 7));
        got += data.len();
    }
    assert_eq!(got, 20_000);
    // It is asked for more room once.
    assert_eq!(stuck.hear(&mut rig, &mut driver).0, Op::CreditRequest);
    for _ in 0..100 {
        writes.write_all(b"news").unwrap();
        assert_eq!(other.hear(&mut rig, &mut driver), (Op::Data, 0, b"news".to_vec()));
    }
    let credit = Header { buffer: 20_000, taken: 20_000, ..packet(Op::CreditUpdate, 1, 5) };
    driver.send(&mut rig, credit, &[]);
    assert_eq!(stuck.hear(&mut rig, &mut driver).0, Op::Data);
}

#[test]
fn a_guest_that_waits_for_room_has_some_when_nobody_takes_its_data_any_more() {
    let (mut rig, host) = device(4);
    let mut driver = Driver::start(&mut rig, u64::MAX, 64);
    let (mut call, mut end) = Call::begun(&mut rig, &mut driver, &host, (1, 5));
    // It reads nothing itself: its buffer is full before the end of what the program sends.
    let full = |op| Header { buffer: 1000, ..packet(op, 1, 5) };
    driver.send(&mut rig, full(Op::CreditUpdate), &[]);
    end.write_all(&[7; 2000]).unwrap();
    loop {
        rig.transport.barrier();
        while let Some((header, data)) = driver.poll(&mut rig) {
            call.heed(header, &data);
        }
        let data = pattern(1, call.sent.into(), call.room().min(10_000));
        if data.is_empty() {
            break;
        }
        let length = u32::try_from(data.len()).unwrap();
        driver.send(&mut rig, Header { length, ..full(Op::Data) }, &data);
        call.sent += length;
    }
    drop(end);
    let ended = loop {
        let (op, flags, _) = call.hear(&mut rig, &mut driver);
        if op == Op::Shutdown {
            break flags;
        }
    };
    assert_eq!((ended, call.room()), (end::RECEIVE, CONNECTION_BUFFER as usize));
}

#[test]
fn a_guest_that_asks_is_told_its_credit() {
    let (mut rig, host) = device(4);
    let mut driver = Driver::start(&mut rig, u64::MAX, 64);
    let (mut call, mut end) = Call::begun(&mut rig, &mut driver, &host, (1, 5));
    call.send(&mut rig, &mut driver, &[1; 100]);
    read(&mut end, 100);
    call.say(&mut rig, &mut driver, Op::CreditRequest, 0);
    assert_eq!(call.hear(&mut rig, &mut driver).0, Op::CreditUpdate);
    assert_eq!((call.buffer, call.passed), (CONNECTION_BUFFER, 100));
}
