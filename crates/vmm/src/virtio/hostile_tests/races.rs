//! Guests that change their rings while the device reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::super::registers::offset;
use super::super::testing::{DATA, Guest, NEXT, Queue, WRITE, descriptor};
use super::Victim;

#[test]
fn rings_that_change_while_the_device_reads_them_harm_nobody() {
    let victims = [Victim::entropy(), Victim::block(true), Victim::net(), Victim::balloon(), Victim::vsock()];
    for victim in victims {
        let mut victim = victim;
        victim.place_canaries();
        for round in 0..4u64 {
            let queues = victim.start();
            let stop = Arc::new(AtomicBool::new(false));
            let writer = scribble(&victim.rig.guest, &queues, round, &stop);
            for i in 0..300 {
                victim.rig.kick(&queues[i % queues.len()]);
                if i % 20 == 0 {
                    victim.rig.transport.barrier();
                    if victim.rig.needs_reset() {
                        victim.start();
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
            writer.join().unwrap();
            victim.rig.transport.barrier();
        }
        victim.rig.set(offset::STATUS, 0);
        victim.check_canaries();
        victim.check();
    }
}

/// Writes descriptors, heads and indices, mostly sensible ones, over and over.
fn scribble(
    guest: &Arc<Guest>,
    queues: &[Queue],
    seed: u64,
    stop: &Arc<AtomicBool>,
) -> thread::JoinHandle<()> {
    let (guest, stop) = (Arc::clone(guest), Arc::clone(stop));
    let places: Vec<_> = queues.iter().map(|queue| (queue.descriptors(), queue.available())).collect();
    thread::spawn(move || {
        // xorshift64: any spread will do.
        let mut state = seed + 0x9e37_79b9_7f4a_7c15;
        let mut next = move |below: u16| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            u16::try_from(state % u64::from(below)).unwrap()
        };
        let mut index = 0u16;
        while !stop.load(Ordering::Relaxed) {
            let (descriptors, available) = places[usize::from(next(4)) % places.len()];
            let buffer = (DATA + u64::from(next(4096)), u32::from(next(2048)), next(4) & (NEXT | WRITE));
            guest.write(descriptors + 16 * u64::from(next(16)), &descriptor(buffer, next(18)));
            guest.write_u16(available + 4 + 2 * u64::from(next(16)), next(17));
            index = index.wrapping_add(next(2));
            guest.write_u16(available + 2, index);
        }
    })
}
