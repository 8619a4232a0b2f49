use proptest::prelude::*;
use virtio_queue::QueueT;

use super::super::feature;
use super::super::negotiation::status;
use super::*;

const FEATURES: u64 = feature::COMMON | 1 << 5;

fn registers() -> Registers {
    Registers::new(2, FEATURES, &[256, 64])
}

fn read(registers: &Registers, register: u64) -> u32 {
    registers.read(register, Live::default())
}

fn negotiate(registers: &mut Registers, features: u64) {
    registers.write(offset::STATUS, 1);
    registers.write(offset::STATUS, 3);
    for (select, half) in [(0, Half::Low), (1, Half::High)] {
        registers.write(offset::DRIVER_FEATURES_SEL, select);
        registers.write(offset::DRIVER_FEATURES, half.of(features));
    }
    registers.write(offset::STATUS, 11);
}

fn set_up(registers: &mut Registers, queue: u32, size: u32, base: u32) {
    registers.write(offset::QUEUE_SEL, queue);
    registers.write(offset::QUEUE_NUM, size);
    registers.write(offset::QUEUE_DESC_LOW, base);
    registers.write(offset::QUEUE_DRIVER_LOW, base + 0x1000);
    registers.write(offset::QUEUE_DEVICE_LOW, base + 0x2000);
    registers.write(offset::QUEUE_READY, 1);
}

#[test]
fn a_driver_that_keeps_the_order_gets_its_queues() {
    let mut registers = registers();
    assert_eq!(read(&registers, offset::MAGIC_VALUE), 0x7472_6976);
    assert_eq!(read(&registers, offset::VERSION), 2);
    assert_eq!(read(&registers, offset::DEVICE_ID), 2);
    negotiate(&mut registers, FEATURES);
    assert_eq!(read(&registers, offset::STATUS), 11);
    set_up(&mut registers, 0, 128, 0x10_0000);
    assert_eq!(read(&registers, offset::QUEUE_READY), 1);
    assert_eq!(registers.write(offset::STATUS, 15), Effect::Activate);
    assert_eq!(registers.write(offset::STATUS, 15), Effect::None, "only once");
    assert_eq!(registers.negotiation.accepted(), FEATURES);
    let queues = registers.negotiation.queues();
    let queue = queues[0].as_ref().unwrap();
    assert_eq!((queue.size(), queue.desc_table(), queue.event_idx_enabled()), (128, 0x10_0000, true));
    assert_eq!((queue.avail_ring(), queue.used_ring()), (0x10_1000, 0x10_2000));
    assert!(queues[1].is_none());
    assert_eq!(registers.write(offset::QUEUE_NOTIFY, 1), Effect::Notify(1));
    assert_eq!(registers.write(offset::QUEUE_NOTIFY, 2), Effect::None);
    assert_eq!(registers.write(offset::STATUS, 0), Effect::Reset);
}

#[test]
fn status_steps_out_of_order_are_ignored() {
    let mut registers = registers();
    for value in [2, 4, 8, 6, 12, 14, 64, 16] {
        assert_eq!(registers.write(offset::STATUS, value), Effect::None);
        assert_eq!(read(&registers, offset::STATUS), 0, "{value}");
    }
    negotiate(&mut registers, FEATURES);
    registers.write(offset::STATUS, 4);
    registers.write(offset::STATUS, 3);
    assert_eq!(read(&registers, offset::STATUS), 11, "bits are never taken back");
}

#[test]
fn features_must_be_offered_and_have_version_1() {
    for features in [FEATURES & !feature::VERSION_1, FEATURES | 1 << 6, FEATURES | 1 << 63, 0] {
        let mut registers = registers();
        negotiate(&mut registers, features);
        assert_eq!(read(&registers, offset::STATUS), 3, "{features:#x}");
    }
    let mut registers = registers();
    registers.write(offset::STATUS, 3);
    registers.write(offset::DRIVER_FEATURES_SEL, 2);
    registers.write(offset::DRIVER_FEATURES, 1);
    negotiate(&mut registers, FEATURES);
    assert_eq!(read(&registers, offset::STATUS), 3, "a feature above bit 63");
}

#[test]
fn features_are_fixed_once_they_are_agreed_on() {
    let mut registers = registers();
    registers.write(offset::DRIVER_FEATURES, 1);
    assert_eq!(registers.negotiation.accepted(), 0, "before DRIVER");
    negotiate(&mut registers, FEATURES);
    registers.write(offset::DRIVER_FEATURES_SEL, 0);
    registers.write(offset::DRIVER_FEATURES, 0xffff_ffff);
    assert_eq!(registers.negotiation.accepted(), FEATURES);
}

#[test]
fn unsound_queues_do_not_become_ready() {
    for size in [0, 3, 257, 512, 0x1_0080, u32::MAX] {
        let mut registers = registers();
        negotiate(&mut registers, FEATURES);
        set_up(&mut registers, 0, size, 0x10_0000);
        assert_eq!(read(&registers, offset::QUEUE_READY), 0, "size {size}");
    }
    for (register, value) in [
        (offset::QUEUE_DESC_LOW, 8),
        (offset::QUEUE_DRIVER_LOW, 1),
        (offset::QUEUE_DEVICE_LOW, 2),
        (offset::QUEUE_READY, 2),
    ] {
        let mut registers = registers();
        negotiate(&mut registers, FEATURES);
        registers.write(register, value);
        registers.write(offset::QUEUE_READY, if register == offset::QUEUE_READY { 2 } else { 1 });
        assert_eq!(read(&registers, offset::QUEUE_READY), 0, "{register:#x}");
    }
    let mut registers = registers();
    negotiate(&mut registers, FEATURES);
    registers.write(offset::QUEUE_DESC_HIGH, u32::MAX);
    registers.write(offset::QUEUE_DESC_LOW, 0xffff_fff0);
    registers.write(offset::QUEUE_READY, 1);
    assert_eq!(read(&registers, offset::QUEUE_READY), 0, "wraps around");
}

#[test]
fn queues_are_fixed_when_ready_and_when_the_driver_is() {
    let mut registers = registers();
    set_up(&mut registers, 0, 128, 0x10_0000);
    assert_eq!(read(&registers, offset::QUEUE_READY), 0, "before FEATURES_OK");
    negotiate(&mut registers, FEATURES);
    set_up(&mut registers, 0, 128, 0x10_0000);
    registers.write(offset::QUEUE_NUM, 64);
    registers.write(offset::STATUS, 15);
    registers.write(offset::QUEUE_READY, 0);
    set_up(&mut registers, 1, 64, 0x20_0000);
    let queues = registers.negotiation.queues();
    assert_eq!(queues[0].as_ref().unwrap().size(), 128);
    assert!(queues[1].is_none());
    registers.write(offset::QUEUE_SEL, 2);
    assert_eq!(read(&registers, offset::QUEUE_NUM_MAX), 0);
}

#[test]
fn what_lives_elsewhere_is_shown() {
    let registers = registers();
    let live = Live { interrupt_cause: 3, needs_reset: true, config_generation: 7 };
    assert_eq!(registers.read(offset::INTERRUPT_STATUS, live), 3);
    assert_eq!(registers.read(offset::STATUS, live), status::NEEDS_RESET);
    assert_eq!(registers.read(offset::CONFIG_GENERATION, live), 7);
}

proptest! {
    #[test]
    fn no_sequence_of_accesses_makes_an_unsound_queue(
        accesses in prop::collection::vec(
            (
                prop_oneof![
                    4 => prop::sample::select(vec![
                        offset::STATUS, offset::QUEUE_SEL, offset::QUEUE_NUM, offset::QUEUE_READY, offset::DRIVER_FEATURES,
                        offset::DRIVER_FEATURES_SEL, offset::QUEUE_DESC_LOW, offset::QUEUE_DEVICE_HIGH,
                        offset::QUEUE_DRIVER_LOW, offset::QUEUE_NOTIFY,
                    ]),
                    1 => any::<u64>(),
                ],
                prop_oneof![3 => 0u32..20, 1 => any::<u32>(), 1 => Just(0x2000_0020)],
            ),
            0..200,
        )
    ) {
        let mut registers = registers();
        for (register, value) in accesses {
            match registers.write(register, value) {
                Effect::Reset => registers.negotiation.reset(),
                Effect::Activate => {
                    prop_assert_eq!(registers.negotiation.accepted() & !FEATURES, 0);
                    prop_assert!(registers.negotiation.accepted() & feature::VERSION_1 != 0);
                    for (queue, max) in registers.negotiation.queues().iter().zip([256, 64]) {
                        prop_assert!(queue.as_ref().is_none_or(|queue| queue.size() <= max));
                    }
                }
                Effect::Notify(queue) => prop_assert!(queue < 2 && registers.negotiation.is_active()),
                Effect::None => {}
            }
            read(&registers, register);
        }
    }
}
