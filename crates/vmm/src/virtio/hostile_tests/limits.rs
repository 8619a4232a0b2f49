//! What must stay bounded, and what must go on, whatever the guest does.

use std::sync::Arc;

use plimsoll_protocol::definition;
use plimsoll_units::{PAGE_SIZE, Pages};

use super::super::balloon::Balloon;
use super::super::block::{Block, BlockConfig};
use super::super::feature;
use super::super::registers::{offset, status};
use super::super::testing::{DATA, Guest, HIGH, Rig, WRITE};
use super::Victim;
use super::victim::DISK;

#[test]
fn notifications_and_resets_at_any_time_are_harmless() {
    for mut victim in [Victim::entropy(), Victim::block(true), Victim::net(), Victim::balloon()] {
        for step in 0..5 {
            for queue in 0..5 {
                victim.rig.set(offset::QUEUE_NOTIFY, queue);
                if let Some(kick) = victim.rig.transport.kicks().get(queue as usize) {
                    // As KVM does, whatever the device's state.
                    kick.write(1).unwrap();
                }
            }
            match step {
                0 => victim.rig.set(offset::STATUS, status::ACKNOWLEDGE),
                1 => drop(victim.rig.set_up(u64::MAX, &victim.sizes.clone())),
                2 => victim.rig.go(),
                3 => victim.rig.set(offset::STATUS, ACTIVE | status::FAILED),
                _ => victim.rig.transport.reset(),
            }
            victim.rig.transport.barrier();
        }
        victim.rig.transport.reset();
        victim.rig.transport.reset();
        victim.check();
        assert_eq!(victim.rig.notices.lock().unwrap().len(), 0);
    }
}

const ACTIVE: u32 = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;

#[test]
fn the_same_chain_twice_and_more_requests_than_places_are_bounded() {
    let mut victim = Victim::block(true);
    let mut queue = victim.start().remove(0);
    victim.rig.guest.write(DATA, &[0; 16]);
    let head = queue
        .add(&victim.rig.guest, &[(DATA, 16, 0), (DATA + 0x1_0000, 65536, WRITE), (DATA + 512, 1, WRITE)]);
    for _ in 0..255 {
        queue.make_available(&victim.rig.guest, head);
    }
    victim.rig.kick(&queue);
    // As they come back, more of the same: the driver owns none of what it gives.
    for _ in 0..2000 {
        victim.rig.wait_used(&mut queue);
        queue.make_available(&victim.rig.guest, head);
        victim.rig.kick(&queue);
    }
    victim.check();
}

#[test]
fn a_disk_that_waits_for_memory_does_not_keep_the_balloon_from_giving_it() {
    let guest = Arc::new(Guest::new(Pages(200)));
    let mut balloon = Rig::on(Arc::clone(&guest), |memory, notices| {
        Balloon::new("balloon", definition::Balloon::default(), memory, notices).unwrap().0
    });
    let mut disk = Rig::on(Arc::clone(&guest), |memory, notices| {
        let file = tempfile::tempfile().unwrap();
        file.set_len(DISK).unwrap();
        let config = BlockConfig { file, read_only: true, id: String::new(), io_uring: true };
        Block::new("disk0", config, memory, notices).unwrap()
    });
    disk.rings = 0x8_0000;
    let mut inflate = balloon.set_up(feature::EVENT_IDX, &[128, 128]).remove(0);
    balloon.go();
    let mut requests = disk.set_up(feature::EVENT_IDX, &[256]).remove(0);
    disk.go();
    // Everything that the guest may hold is touched, then the disk is to read 64 pages more.
    guest.write(DATA, &[0; 4096]);
    let first = u32::try_from(HIGH / PAGE_SIZE).unwrap();
    let ppns: Vec<u8> = (first..first + 100).flat_map(u32::to_le_bytes).collect();
    guest.write(DATA + 1024, &ppns);
    let touched = (0..).map(|i| HIGH + i * PAGE_SIZE).take_while(|at| {
        let room = guest.pmap.stats().held < guest.pmap.stats().grant;
        if room {
            guest.write(*at, &[1]);
        }
        room
    });
    assert!(touched.count() >= 100);
    requests.add(&guest, &[(DATA, 16, 0), (2 << 20, 64 * 4096, WRITE), (DATA + 512, 1, WRITE)]);
    disk.kick(&requests);
    disk.wait_for("the disk to wait", |rig| rig.guest.pmap.stats().wanted > Pages::ZERO);
    balloon.run(&mut inflate, &[(DATA + 1024, 400, 0)]);
    assert_eq!(disk.wait_used(&mut requests).1, 64 * 4096 + 1);
    assert_eq!(guest.pmap.stats().ballooned, Pages(100));
}

#[test]
fn a_driver_that_notifies_only_when_asked_is_never_forgotten() {
    for (mut victim, index) in
        [(Victim::entropy(), 0), (Victim::block(true), 0), (Victim::block(false), 0), (Victim::net(), 1)]
    {
        let mut queue = victim.start().remove(index);
        victim.rig.guest.write(DATA, &[0; 512]);
        for round in 0..300u32 {
            // One, two or three at a time, so that the device finds them in all sorts of moments.
            let count = round % 3 + 1;
            for _ in 0..count {
                queue.add(&victim.rig.guest, &[(DATA, 16, 0), (DATA + 1024, 513, WRITE)]);
                victim.rig.kick_when_asked(&mut queue);
            }
            for _ in 0..count {
                victim.rig.wait_used(&mut queue);
            }
        }
    }
}
