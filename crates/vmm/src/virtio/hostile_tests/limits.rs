//! What must stay bounded, and what must go on, whatever the guest does.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use plimsoll_pmap::{PpnRange, Release};
use plimsoll_protocol::definition;
use plimsoll_units::{PAGE_SIZE, Pages, Ppn};

use super::super::balloon::Balloon;
use super::super::block::{Block, BlockConfig};
use super::super::feature;
use super::super::negotiation::status;
use super::super::registers::offset;
use super::super::testing::{DATA, Guest, HIGH, Rig, WRITE};
use super::Victim;
use super::victim::{DISK, disk_of};

#[test]
fn notifications_and_resets_at_any_time_are_harmless() {
    let all = || [Victim::entropy(), Victim::block(true), Victim::net(), Victim::balloon(), Victim::vsock()];
    for mut victim in all().into_iter().chain(all().map(Victim::on_pci)) {
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
        let config = BlockConfig { read_only: true, ..disk_of(file, true) };
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

/// A disk of `guest` whose sectors each begin with their number, and its file.
fn numbered_disk(guest: &Arc<Guest>, io_uring: bool) -> (Rig, File) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(DISK).unwrap();
    for sector in 0..DISK / 512 {
        file.write_all_at(&sector.to_le_bytes(), sector * 512).unwrap();
    }
    let disk = file.try_clone().unwrap();
    let rig = Rig::on(Arc::clone(guest), |memory, notices| {
        Block::new("disk0", disk_of(file, io_uring), memory, notices).unwrap()
    });
    (rig, disk)
}

/// A chain that reads `pages` from sector 0 on to `to`; its header and status are at `DATA`.
fn read_of(to: u64, pages: u32) -> [(u64, u32, u16); 3] {
    [(DATA, 16, 0), (to, pages * 4096, WRITE), (DATA + 512, 1, WRITE)]
}

fn holds_sectors(guest: &Guest, at: u64, pages: u64) -> bool {
    (0..pages * 8).all(|sector| guest.read(at + sector * 512, 8) == sector.to_le_bytes())
}

#[test]
fn a_request_ends_while_the_next_waits_for_memory_that_only_it_can_free() {
    for io_uring in [true, false] {
        let guest = Arc::new(Guest::new(Pages(200)));
        let (mut disk, _) = numbered_disk(&guest, io_uring);
        let mut requests = disk.set_up(feature::EVENT_IDX, &[256]).remove(0);
        disk.go();
        guest.write(DATA, &[0; 4096]);
        let (first, second) = (2 << 20, HIGH);
        requests.add(&guest, &read_of(first, 150));
        requests.add(&guest, &read_of(second, 150));
        disk.kick(&requests);
        assert_eq!(disk.wait_used(&mut requests).1, 150 * 4096 + 1);
        assert!(holds_sectors(&guest, first, 150));
        disk.wait_for("the second to wait", |rig| rig.guest.pmap.stats().wanted > Pages::ZERO);
        let done = PpnRange::new(Ppn::of_address(first), Pages(150));
        assert_eq!(guest.pmap.release(&[done], Release::Reported).busy, Pages::ZERO);
        assert_eq!(disk.wait_used(&mut requests).1, 150 * 4096 + 1);
        assert!(holds_sectors(&guest, second, 150));
    }
}

#[test]
fn requests_beyond_what_the_vm_may_hold_are_served_with_the_swap() {
    for io_uring in [true, false] {
        let guest = Arc::new(Guest::with_swap(Pages(200)));
        let (mut disk, file) = numbered_disk(&guest, io_uring);
        let mut requests = disk.set_up(feature::EVENT_IDX, &[256]).remove(0);
        disk.go();
        guest.write(DATA, &[0; 4096]);
        let over = AtomicBool::new(false);
        // Also ends where the test has failed.
        let deadline = Instant::now() + Duration::from_secs(60);
        thread::scope(|scope| {
            let pager = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) && Instant::now() < deadline {
                    let wanted = guest.pmap.stats().wanted;
                    if wanted > Pages::ZERO {
                        guest.pmap.page_out(wanted);
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            });
            // One alone, and then many.
            requests.add(&guest, &read_of(HIGH, 450));
            disk.kick(&requests);
            assert_eq!(disk.wait_used(&mut requests).1, 450 * 4096 + 1);
            assert!(holds_sectors(&guest, HIGH, 450));
            // What was read goes back, some sectors further on.
            guest.write(DATA + 1024, &[1u32.to_le_bytes(), [0; 4], 7u32.to_le_bytes(), [0; 4]].concat());
            let write = [(DATA + 1024, 16, 0), (HIGH, 450 * 4096, 0), (DATA + 512, 1, WRITE)];
            assert_eq!((disk.run(&mut requests, &write), guest.read(DATA + 512, 1)), (1, vec![0]));
            let sector = |number: u64| {
                let mut begin = [0; 8];
                file.read_exact_at(&mut begin, number * 512).unwrap();
                u64::from_le_bytes(begin)
            };
            assert!((0..450 * 8).all(|number| sector(number + 7) == number));
            (0..450 * 8_u64).for_each(|n| file.write_all_at(&(n + 7).to_le_bytes(), (n + 7) * 512).unwrap());
            for _ in 0..20 {
                requests.add(&guest, &read_of(2 << 20, 300));
                requests.add(&guest, &read_of(HIGH, 100));
            }
            disk.kick(&requests);
            for _ in 0..40 {
                disk.wait_used(&mut requests);
            }
            assert!(holds_sectors(&guest, 2 << 20, 300) && holds_sectors(&guest, HIGH, 100));
            over.store(true, Ordering::Relaxed);
            pager.join().unwrap();
        });
        let stats = guest.pmap.stats();
        assert!(stats.held <= stats.grant && stats.traffic.swapped_out > 0);
    }
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
