use super::super::feature;
use super::super::interrupt::USED_BUFFER;
use super::super::registers::offset;
use super::super::testing::{DATA, HIGH, Rig, WRITE};
use super::*;

fn rig() -> Rig {
    Rig::new(|memory, notices| Entropy::new("entropy", memory, notices).unwrap())
}

#[test]
fn random_bytes_fill_the_buffers_and_nothing_else() {
    let mut rig = rig();
    for features in [0, feature::EVENT_IDX] {
        let mut queue = rig.set_up(features, QUEUE_SIZES).remove(0);
        rig.go();
        rig.guest.write(DATA, &[0; 8192]);
        assert_eq!(rig.run(&mut queue, &[(DATA + 64, 64, WRITE), (HIGH, 32, WRITE)]), 96);
        let around = rig.guest.read(DATA, 256);
        assert_eq!((&around[..64], &around[128..]), (&[0; 64][..], &[0; 128][..]));
        assert!(around[64..128].iter().filter(|byte| **byte != 0).count() > 32);
        rig.wait_for("an interrupt", |rig| rig.get(offset::INTERRUPT_STATUS) == USED_BUFFER);
        assert_eq!(rig.transport.line().read().unwrap(), 1);
        rig.set(offset::INTERRUPT_ACK, USED_BUFFER);
        assert_eq!(rig.get(offset::INTERRUPT_STATUS), 0);
    }
}

#[test]
fn a_request_is_answered_up_to_its_bound() {
    let mut rig = rig();
    let mut queue = rig.set_up(0, QUEUE_SIZES).remove(0);
    rig.go();
    assert_eq!(rig.run(&mut queue, &[(DATA, 1 << 20, WRITE)]), 4096);
    assert_eq!(rig.run(&mut queue, &[(DATA, 16, 0)]), 0, "a readable buffer is not written");
}

#[test]
fn a_buffer_from_before_the_driver_was_ready_is_served() {
    let mut rig = rig();
    let mut queue = rig.set_up(0, QUEUE_SIZES).remove(0);
    queue.add(&rig.guest, &[(DATA, 16, WRITE)]);
    rig.kick(&queue);
    rig.go();
    assert_eq!(rig.wait_used(&mut queue).1, 16);
}
