//! Each rule of the queues broken by itself.

use super::super::registers::offset;
use super::super::testing::{DATA, HIGH, HIGH_END, INDIRECT, LOW_END, NEXT, Queue, Rig, WRITE, descriptor};
use super::{TABLE, Victim};

/// What breaks a queue, done to a disk, and a word of the notice.
type Attack = (&'static str, fn(&mut Rig, &mut Queue), &'static str);

const ATTACKS: &[Attack] = &[
    ("available index far ahead", |rig, queue| queue.set_available(&rig.guest, 257), "ran ahead"),
    ("available index behind", |rig, queue| queue.set_available(&rig.guest, u16::MAX), "ran ahead"),
    ("head outside of the table", |rig, queue| queue.make_available(&rig.guest, 256), "descriptor chain"),
    (
        "loop of two",
        |rig, queue| {
            queue.write_descriptor(&rig.guest, 0, (DATA, 16, NEXT), 1);
            queue.write_descriptor(&rig.guest, 1, (DATA, 16, NEXT), 0);
            queue.make_available(&rig.guest, 0);
        },
        "descriptor chain",
    ),
    (
        "next outside of the table",
        |rig, queue| {
            queue.write_descriptor(&rig.guest, 0, (DATA, 16, NEXT), 256);
            queue.make_available(&rig.guest, 0);
        },
        "descriptor chain",
    ),
    (
        "indirect table of no whole descriptors",
        |rig, queue| {
            queue.add(&rig.guest, &[(TABLE, 24, INDIRECT)]);
        },
        "descriptor chain",
    ),
    (
        "empty indirect table",
        |rig, queue| {
            queue.add(&rig.guest, &[(TABLE, 0, INDIRECT)]);
        },
        "descriptor chain",
    ),
    (
        "indirect table within one",
        |rig, queue| {
            rig.guest.write(TABLE, &descriptor((TABLE, 16, INDIRECT), 0));
            queue.add(&rig.guest, &[(TABLE, 16, INDIRECT)]);
        },
        "descriptor chain",
    ),
    (
        "indirect table outside of memory",
        |rig, queue| {
            queue.add(&rig.guest, &[(LOW_END, 64, INDIRECT)]);
        },
        "descriptor chain",
    ),
    (
        "indirect chain longer than the queue",
        |rig, queue| {
            // But for its length it would do.
            let mut table: Vec<u8> = (1..600).flat_map(|next| descriptor((DATA, 16, NEXT), next)).collect();
            table.extend(descriptor((DATA + 512, 1, WRITE), 0));
            rig.guest.write(TABLE, &table);
            queue.add(&rig.guest, &[(TABLE, 600 * 16, INDIRECT)]);
        },
        "descriptor chain",
    ),
    (
        "chain of more than 4 GiB",
        |rig, queue| {
            let buffers = vec![(0, 4 << 20, WRITE); 255];
            rig.guest.write(queue.descriptors(), &[0; 16]);
            let mut all = vec![(DATA, u32::MAX, 0)];
            all.extend(buffers);
            queue.add(&rig.guest, &all);
        },
        "outside of guest memory",
    ),
    (
        "readable behind writable",
        |rig, queue| {
            queue.add(&rig.guest, &[(DATA, 16, 0), (DATA, 1, WRITE), (DATA, 16, 0)]);
        },
        "follows a writable",
    ),
    (
        "buffer in the hole",
        |rig, queue| {
            queue.add(&rig.guest, &[(LOW_END, 16, 0)]);
        },
        "outside of guest memory",
    ),
    (
        "buffer across the end of memory",
        |rig, queue| {
            queue.add(&rig.guest, &[(HIGH_END - 8, 16, 0)]);
        },
        "outside of guest memory",
    ),
    (
        "buffer across the hole",
        |rig, queue| {
            queue.add(&rig.guest, &[(LOW_END - 8, 5 << 20, 0)]);
        },
        "outside of guest memory",
    ),
    (
        "buffer around the address space",
        |rig, queue| {
            queue.add(&rig.guest, &[(u64::MAX - 7, 16, 0)]);
        },
        "outside of guest memory",
    ),
    (
        "no header",
        |rig, queue| {
            queue.add(&rig.guest, &[(DATA, 15, 0), (DATA, 512, WRITE)]);
        },
        "lacks a buffer",
    ),
    (
        "no status byte",
        |rig, queue| {
            queue.add(&rig.guest, &[(DATA, 16, 0), (DATA, 0, WRITE)]);
        },
        "lacks a buffer",
    ),
];

#[test]
fn every_breach_of_a_queues_rules_stops_the_device_with_a_notice() {
    let over = [|victim: Victim| victim, Victim::on_pci];
    for ((name, attack, word), over) in ATTACKS.iter().flat_map(|attack| over.map(|over| (attack, over))) {
        let mut victim = over(Victim::block(true));
        let mut queue = victim.start().remove(0);
        attack(&mut victim.rig, &mut queue);
        victim.rig.kick(&queue);
        victim.rig.transport.barrier();
        assert!(victim.rig.needs_reset(), "{name}");
        assert_ne!(victim.rig.get(offset::INTERRUPT_STATUS), 0, "{name}: the driver is told");
        let notices = victim.rig.notices.lock().unwrap().clone();
        assert!(matches!(&notices[..], [notice] if notice.contains(word)), "{name}: {notices:?}");
        // A stopped device does nothing until it is reset.
        victim.rig.kick(&queue);
        victim.rig.transport.barrier();
        assert!(queue.next_used(&victim.rig.guest).is_none(), "{name}");
        victim.check();
        assert!(!victim.rig.needs_reset(), "{name}");
    }
}

#[test]
fn breaking_a_queue_over_and_over_is_told_once() {
    let mut victim = Victim::net();
    for _ in 0..50 {
        let mut queues = victim.start();
        queues[1].set_available(&victim.rig.guest, 999);
        victim.rig.kick(&queues[1]);
        victim.rig.transport.barrier();
        assert!(victim.rig.needs_reset());
    }
    victim.check();
    assert_eq!(victim.rig.notices.lock().unwrap().len(), 1);
}

#[test]
fn rings_outside_of_memory_stop_the_device() {
    let rings = [DATA, DATA + 0x4000, DATA + 0x8000];
    for bad in [LOW_END, LOW_END - 64, HIGH - 64, HIGH_END - 64, 1 << 60, 0] {
        for which in 0..3 {
            if bad == 0 && which != 1 {
                continue;
            }
            let mut victim = Victim::block(true);
            victim.rig.set_up(u64::MAX, &[]);
            let mut place = rings;
            place[which] = bad;
            victim.rig.set_queue(0, 256, place[0], place[1], place[2]);
            victim.rig.go();
            victim.rig.transport.barrier();
            assert!(victim.rig.needs_reset(), "{bad:#x} {which}");
            victim.check();
        }
    }
}
