use proptest::prelude::*;

use super::super::entropy::Entropy;
use super::super::interrupt::{CONFIG_CHANGE, USED_BUFFER};
use super::super::negotiation::status;
use super::super::testing::transport::{BASE, LINE, OnPci, Transport};
use super::super::testing::{DATA, Rig, WRITE};
use super::*;
use crate::bus::BusDevice;
use crate::pci::testing::Record;
use crate::pci::{Ecam, MemoryWindow, Message, Root, offset};

fn rig() -> Rig {
    let mut rig = Rig::new(|memory, notices| Entropy::new("entropy", memory, notices).unwrap());
    rig.transport.move_to_pci();
    rig
}

fn word(function: &mut PciTransport, at: usize) -> u32 {
    let mut word = [0; 4];
    function.read_config(at, &mut word);
    u32::from_le_bytes(word)
}

/// The capabilities of a function: where each is, and its number.
fn capabilities(function: &mut PciTransport) -> Vec<(usize, u8)> {
    let byte = |function: &mut PciTransport, at: usize| word(function, at & !3).to_le_bytes()[at & 3];
    let mut at = usize::from(byte(function, offset::CAPABILITIES));
    let mut found = vec![];
    while at != 0 {
        found.push((at, byte(function, at)));
        at = byte(function, at + 1).into();
        assert!(found.len() < 48, "the list has an end");
    }
    found
}

/// Makes vector `vector` send data `data`, and enables messages.
fn program(pci: &mut OnPci, vector: u64, data: u32) {
    let entry = u64::from(part::TABLE) + 16 * vector;
    pci.write(entry, 4, 0xfee0_0000);
    pci.write(entry + 8, 4, data);
    pci.write(entry + 12, 4, 0);
    let [(msix, _), ..] = capabilities(&mut pci.function)[..] else { panic!("there are capabilities") };
    pci.function.write_config(msix + 2, &MSIX_ENABLE.to_le_bytes());
}

/// How often vector `vector` was sent since the last look.
fn sent(pci: &OnPci, vector: usize) -> u64 {
    pci.function.msix().lines().nth(vector).unwrap().1.read().unwrap_or(0)
}

#[test]
fn a_walk_along_the_capabilities_finds_every_part_in_the_bar() {
    let mut rig = rig();
    let function = &mut rig.transport.pci().function;
    assert_eq!(word(function, 0), 0x1044_1af4);
    let found = capabilities(function);
    let numbers: Vec<u8> = found.iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, [0x11, 9, 9, 9, 9, 9]);
    let mut parts = vec![];
    for (at, _) in &found[1..] {
        let [_, _, length, leads] = word(function, *at).to_le_bytes();
        let (bar, from, to) = (word(function, at + 4), word(function, at + 8), word(function, at + 12));
        assert_eq!((bar, length), (0, if matches!(leads, 2 | 5) { 20 } else { 16 }));
        assert!(u64::from(from) + u64::from(to) <= BAR_LENGTH);
        parts.push((leads, from));
    }
    let expected = [(1, part::COMMON), (2, part::NOTIFY), (3, part::ISR), (4, part::CONFIG), (5, 0)];
    assert_eq!(parts, expected);
    assert_eq!(word(function, found[2].0 + 16), NOTIFY_STRIDE);
    // One vector for the queue and one for the configuration, as the number of the last.
    assert_eq!(word(function, found[0].0) >> 16, 1);
    assert_eq!(
        (word(function, found[0].0 + 4), word(function, found[0].0 + 8)),
        (part::TABLE, part::PENDING)
    );
}

#[test]
fn a_queue_interrupts_by_its_vector_and_the_configuration_by_its_own() {
    let mut rig = rig();
    let mut queue = rig.set_up(0, &[16]).remove(0);
    let pci = rig.transport.pci();
    for (vector, data) in [(0, 0x30), (1, 0x31)] {
        program(pci, vector, data);
    }
    pci.write(field::CONFIG_VECTOR, 2, 0);
    pci.write(field::QUEUE_SELECT, 2, 0);
    pci.write(field::QUEUE_VECTOR, 2, 1);
    assert_eq!((pci.read(field::CONFIG_VECTOR, 2), pci.read(field::QUEUE_VECTOR, 2)), (0, 1));
    rig.go();
    assert_eq!(rig.run(&mut queue, &[(DATA, 64, WRITE)]), 64);
    rig.wait_for("the queue's message", |rig| sent(rig.transport.pci(), 1) == 1);
    let pci = rig.transport.pci();
    assert_eq!(sent(pci, 0), 0);
    let message = |data| Message { address: 0xfee0_0000, data };
    assert_eq!(pci.record.routes(), [(LINE, message(0x30)), (LINE + 1, message(0x31))]);
    assert_eq!(pci.read(part::ISR.into(), 1), USED_BUFFER);
    assert_eq!(pci.read(part::ISR.into(), 1), 0, "cleared by being read");
    // A broken queue is a change of the configuration.
    queue.set_available(&rig.guest, 999);
    rig.kick(&queue);
    rig.wait_for("the configuration's message", |rig| sent(rig.transport.pci(), 0) == 1);
    let pci = rig.transport.pci();
    assert_eq!((pci.read(part::ISR.into(), 1), sent(pci, 1)), (CONFIG_CHANGE, 0));
    assert!(rig.needs_reset());
}

#[test]
fn a_masked_queue_is_pending_until_it_is_unmasked() {
    let mut rig = rig();
    let mut queue = rig.set_up(0, &[16]).remove(0);
    let pci = rig.transport.pci();
    program(pci, 1, 0x31);
    pci.write(u64::from(part::TABLE) + 28, 4, 1);
    pci.write(field::QUEUE_VECTOR, 2, 1);
    rig.go();
    assert_eq!(rig.run(&mut queue, &[(DATA, 64, WRITE)]), 64);
    rig.wait_for("the pending bit", |rig| rig.transport.pci().read(part::PENDING.into(), 4) == 2);
    let pci = rig.transport.pci();
    assert_eq!(sent(pci, 1), 0);
    pci.write(u64::from(part::TABLE) + 28, 4, 0);
    assert_eq!((sent(pci, 1), pci.read(part::PENDING.into(), 4)), (1, 0));
}

#[test]
fn vectors_that_do_not_exist_are_none_and_a_reset_takes_all_away() {
    let mut rig = rig();
    rig.set_up(0, &[16]);
    let pci = rig.transport.pci();
    for bad in [2, 0x7fff, 0xffff] {
        pci.write(field::CONFIG_VECTOR, 2, 1);
        pci.write(field::CONFIG_VECTOR, 2, bad);
        pci.write(field::QUEUE_VECTOR, 2, bad);
        let none = u32::from(NO_VECTOR);
        assert_eq!((pci.read(field::CONFIG_VECTOR, 2), pci.read(field::QUEUE_VECTOR, 2)), (none, none));
    }
    pci.write(field::QUEUE_VECTOR, 2, 1);
    pci.write(field::QUEUE_SELECT, 2, 1);
    pci.write(field::QUEUE_VECTOR, 2, 1);
    assert_eq!(pci.read(field::QUEUE_SIZE, 2), 0, "there is no second queue");
    assert_eq!(pci.read(field::QUEUE_VECTOR, 2), u32::from(NO_VECTOR));
    pci.write(field::STATUS, 1, 0);
    assert_eq!((pci.read(field::QUEUE_VECTOR, 2), pci.read(field::STATUS, 1)), (u32::from(NO_VECTOR), 0));
}

#[test]
fn fields_are_served_in_their_own_width_only() {
    let mut rig = rig();
    let pci = rig.transport.pci();
    pci.write(field::STATUS, 4, status::ACKNOWLEDGE);
    pci.write(field::STATUS, 2, status::ACKNOWLEDGE);
    assert_eq!(pci.read(field::STATUS, 1), 0);
    pci.write(field::STATUS, 1, status::ACKNOWLEDGE);
    assert_eq!((pci.read(field::STATUS, 1), pci.read(field::STATUS, 4)), (status::ACKNOWLEDGE, 0));
    assert_eq!((pci.read(field::QUEUE_COUNT, 2), pci.read(field::QUEUE_COUNT, 1)), (1, 0));
}

/// Writes and reads back `data` through the window capability, which is set to `bar`, `from` and
/// `length`.
fn through_window(function: &mut PciTransport, bar: u8, from: u32, length: u32, data: &mut [u8]) {
    let at = capabilities(function).last().unwrap().0;
    function.write_config(at + 4, &[bar]);
    function.write_config(at + 8, &from.to_le_bytes());
    function.write_config(at + 12, &length.to_le_bytes());
    function.write_config(at + 16, data);
    function.read_config(at + 16, data);
}

#[test]
fn the_bar_is_reached_through_configuration_space_as_well() {
    let mut rig = rig();
    let pci = rig.transport.pci();
    let mut status = [1];
    through_window(&mut pci.function, 0, 0x14, 1, &mut status);
    assert_eq!((status, pci.read(field::STATUS, 1)), ([1], 1));
    // Not as the window says: the byte, which would reset the device, is only kept.
    for (bar, from, length) in [(1, 0x14, 1), (0, 0x14, 2), (0, 0x8000, 1), (0, u32::MAX, 1), (0, 0x14, 0)] {
        through_window(&mut pci.function, bar, from, length, &mut [0]);
        assert_eq!(pci.read(field::STATUS, 1), 1, "{bar} {from:#x} {length}");
    }
    through_window(&mut pci.function, 0, 0x14, 1, &mut [0]);
    assert_eq!(pci.read(field::STATUS, 1), 0);
}

/// A bus with an entropy device in slot 1.
fn bus() -> (Arc<Root>, Arc<Record>, Rig) {
    let mut rig = rig();
    let Transport::Pci(pci) = std::mem::replace(&mut rig.transport, Transport::Moving) else {
        panic!("it was moved")
    };
    let mut root = Root::new(BASE..BASE + 0x10_0000);
    let OnPci { function, record, .. } = *pci;
    root.add(8, Box::new(function));
    (Arc::new(root), record, rig)
}

#[test]
fn doorbells_are_where_the_bar_is() {
    let (root, record, _rig) = bus();
    let ecam = Ecam(Arc::clone(&root));
    let (command, bar) = (0x8000 + offset::COMMAND as u64, 0x8000 + offset::BAR as u64);
    assert!(record.watched().is_empty());
    ecam.write(command, &[6, 0]);
    assert_eq!(record.watched(), [BASE + u64::from(part::NOTIFY)]);
    ecam.write(bar, &0xd004_0000_u32.to_le_bytes());
    assert_eq!(record.watched(), [0xd004_0000 + u64::from(part::NOTIFY)]);
    ecam.write(bar, &0xfee0_0000_u32.to_le_bytes());
    assert!(record.watched().is_empty());
    ecam.write(bar, &0xd004_0000_u32.to_le_bytes());
    root.reset();
    assert_eq!((record.watched(), root.mapped()), (vec![], vec![]));
}

proptest! {
    #[test]
    fn no_accesses_reach_beyond_the_bus(
        accesses in prop::collection::vec(
            (any::<bool>(), 0u64..0x8000, 1usize..=8, any::<[u8; 8]>(), any::<bool>()),
            1..200,
        )
    ) {
        let (root, record, rig) = bus();
        let (ecam, memory) = (Ecam(Arc::clone(&root)), MemoryWindow(Arc::clone(&root)));
        ecam.write(0x8000 + offset::COMMAND as u64, &[6, 0]);
        for (in_config, at, len, data, small) in accesses {
            let data = if small { data.map(|byte| byte & 3) } else { data };
            let (device, at): (&dyn BusDevice, u64) =
                if in_config { (&ecam, 0x8000 + at % 0x100) } else { (&memory, at) };
            device.read(at, &mut data[..len].to_vec());
            device.write(at, &data[..len]);
            for (line, message) in record.routes() {
                prop_assert!((LINE..LINE + 2).contains(&line) && message.address >> 20 == 0xfee);
            }
            let doorbells: Vec<u64> =
                root.mapped().iter().map(|bar| bar.start + u64::from(part::NOTIFY)).collect();
            prop_assert_eq!(record.watched(), doorbells);
        }
        root.reset();
        prop_assert!(record.routes().is_empty() && record.watched().is_empty());
        drop(rig);
    }
}
