//! Disks that are held to a rate, and rates that change.

use std::thread;
use std::time::{Duration, Instant};

use plimsoll_units::Bytes;

use super::*;

fn operations(n: u64) -> RateLimit {
    RateLimit { operations: Some(n), ..RateLimit::default() }
}

/// A disk held to `rate`, its handle, and its file.
fn held(rate: RateLimit) -> (Rig, BlockHandle, File) {
    let (file, kept) = file();
    let mut handle = None;
    let rig = Rig::new(|memory, notices| {
        let medium = Medium::File(file.try_clone().unwrap(), Geometry::of(&file).unwrap());
        let config = BlockConfig { medium, read_only: false, rate, id: "a-disk".to_owned(), io_uring: true };
        let block = Block::new("disk0", config, memory, notices).unwrap();
        handle = Some(block.handle());
        block
    });
    (rig, handle.unwrap(), kept)
}

/// Makes `count` reads of a sector available, and notifies.
fn read(rig: &mut Rig, queue: &mut Queue, count: usize) {
    rig.guest.write(HEADER, &header(0, 0));
    for _ in 0..count {
        queue.add(&rig.guest, &[(HEADER, 16, 0), (BUFFER, 512, WRITE), (STATUS, 1, WRITE)]);
    }
    rig.kick(queue);
}

#[test]
fn a_disk_keeps_to_its_rate_and_answers_all_requests() {
    let (mut rig, _file) = limited(false, true, operations(20));
    let mut queue = start(&mut rig);
    let begin = Instant::now();
    for sector in 0..8 {
        let read = request(&mut rig, &mut queue, 0, sector, &[(BUFFER, 512, WRITE)]);
        assert_eq!(read, (OK, 513));
    }
    // Two are the burst of a tenth of a second, one goes into debt; the others come one in 50 ms.
    assert!(begin.elapsed() >= Duration::from_millis(245), "{:?}", begin.elapsed());
}

#[test]
fn a_limited_disk_goes_on_when_its_wait_ends_between_two_looks() {
    let (mut rig, _file) = limited(false, true, operations(2000));
    let mut queue = start(&mut rig);
    rig.guest.write(HEADER, &header(0, 0));
    let (mut done, mut added) = (0_u32, 0_u32);
    while done < 10_000 {
        while added - done < 32 {
            queue.add(&rig.guest, &[(HEADER, 16, 0), (BUFFER, 512, WRITE), (STATUS, 1, WRITE)]);
            added += 1;
            // As a driver does: it tells the device only where the device asks for that.
            rig.kick_when_asked(&mut queue);
        }
        rig.wait_used(&mut queue);
        done += 1;
    }
}

#[test]
fn requests_that_wait_for_a_rate_begin_when_it_rises_without_another_notification() {
    // The debt of a 64 KiB request at a byte a second: nothing else would begin within an hour.
    let slow = RateLimit { bandwidth: Some(Bytes(1)), ..RateLimit::default() };
    let faster = RateLimit { bandwidth: Some(Bytes::mib(100)), ..RateLimit::default() };
    for new in [faster, RateLimit::default()] {
        let (mut rig, handle, _file) = held(slow);
        let mut queue = start(&mut rig);
        assert_eq!(request(&mut rig, &mut queue, 0, 0, &[(BUFFER, 65536, WRITE)]), (OK, 65537));
        read(&mut rig, &mut queue, 8);
        thread::sleep(Duration::from_millis(50));
        assert_eq!(queue.next_used(&rig.guest), None, "a request began before its time");
        handle.set_rate(new);
        for _ in 0..8 {
            assert_eq!(rig.wait_used(&mut queue).1, 513, "{new:?}");
        }
    }
}

#[test]
fn a_rate_that_is_set_while_the_disk_runs_holds_from_then_on() {
    let (mut rig, handle, _file) = held(RateLimit::default());
    let mut queue = start(&mut rig);
    read(&mut rig, &mut queue, 50);
    for _ in 0..50 {
        rig.wait_used(&mut queue);
    }
    handle.set_rate(operations(20));
    // Wishes are taken up before orders.
    rig.transport.barrier();
    let begin = Instant::now();
    read(&mut rig, &mut queue, 8);
    for _ in 0..8 {
        rig.wait_used(&mut queue);
    }
    assert!(begin.elapsed() >= Duration::from_millis(245), "{:?}", begin.elapsed());
}

#[test]
fn a_rate_may_change_between_drivers_and_while_none_is_there() {
    let (mut rig, handle, _file) = held(operations(20));
    handle.set_rate(operations(1_000_000));
    for round in 0..3 {
        let mut queue = start(&mut rig);
        read(&mut rig, &mut queue, 80);
        handle.set_rate(operations(500_000 + round));
        for _ in 0..80 {
            rig.wait_used(&mut queue);
        }
        rig.set(offset::STATUS, 0);
        handle.set_rate(operations(900_000 + round));
    }
}

#[test]
fn changes_that_come_while_requests_are_in_flight_lose_none() {
    let (mut rig, handle, _file) = held(operations(100_000));
    let mut queue = start(&mut rig);
    let changes = thread::spawn(move || {
        for n in 0..2000_u64 {
            handle.set_rate(if n.is_multiple_of(7) {
                RateLimit::default()
            } else {
                operations(1000 + n * 100)
            });
        }
        handle.set_rate(RateLimit::default());
    });
    for _ in 0..40 {
        read(&mut rig, &mut queue, 60);
        for _ in 0..60 {
            assert_eq!(rig.wait_used(&mut queue).1, 513);
        }
    }
    changes.join().unwrap();
}
