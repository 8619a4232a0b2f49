//! Any sequence of deeds on any device.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::super::testing::{Buffer, DATA, HIGH, HIGH_END, LOW_END};
use super::Victim;
use super::deed::{Deed, REGISTERS, attack};

/// The whole time of these tests goes with it; each case tries some tens of things.
const CASES: u32 = 150;

fn buffers() -> impl Strategy<Value = Buffer> {
    let length = prop_oneof![
        Just(0u32),
        1u32..64,
        Just(16),
        Just(512),
        Just(513),
        Just(4096),
        Just(0x1_0000),
        Just(2 << 20),
        any::<u32>()
    ];
    let straddling = (1u32..8192, 1u32..0x10_0000).prop_flat_map(|(before, after)| {
        let back = u64::from(before);
        let length = before + after;
        prop_oneof![
            Just((LOW_END - back, length)),
            Just((HIGH - back, length)),
            Just((HIGH_END - back, length))
        ]
    });
    let placed = (
        prop_oneof![
            4 => (0u64..0x8000).prop_map(|at| DATA + at),
            2 => 0x1_0000u64..0x5_0000,
            1 => LOW_END..HIGH - 0x1_0000,
            1 => HIGH_END..,
            1 => Just(0),
            1 => u64::MAX - 0x1_0000..,
        ],
        length,
    );
    // What is placed in RAM may not reach a canary: 2 MiB and more from there is straddling on
    // purpose, and refused.
    let placed =
        placed.prop_map(|(at, length)| if at < LOW_END { (at, length.min(2 << 20)) } else { (at, length) });
    (prop_oneof![5 => placed, 1 => straddling], prop_oneof![6 => 0u16..8, 1 => any::<u16>()])
        .prop_map(|((address, length), flags)| (address, length, flags))
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let queue = 0usize..4;
    let index = prop_oneof![5 => 0u16..12, 1 => 0u16..256];
    let next = prop_oneof![6 => 0u16..12, 1 => any::<u16>()];
    let register = prop::sample::select(&REGISTERS[..]);
    let value = prop_oneof![4 => 0u32..16, 1 => any::<u32>(), 1 => Just(0x1_0000), 1 => Just(0x3f_ff00)];
    let deed = prop_oneof![
        10 => (queue.clone(), index.clone(), buffers(), next.clone())
            .prop_map(|(queue, index, buffer, next)| Deed::Descriptor { queue, index, buffer, next }),
        3 => (index, buffers(), next).prop_map(|(index, buffer, next)| Deed::Indirect { index, buffer, next }),
        4 => (queue.clone(), 0u16..16, prop_oneof![8 => 0u16..12, 1 => any::<u16>()])
            .prop_map(|(queue, slot, head)| Deed::Available { queue, slot, head }),
        1 => (queue.clone(), any::<u16>()).prop_map(|(queue, index)| Deed::AvailableIndex { queue, index }),
        8 => (queue.clone(), 1u16..4).prop_map(|(queue, by)| Deed::Advance { queue, by }),
        6 => (queue.clone(), word_of(), word_of(), 0u32..3000, 0u32..3000).prop_map(
            |(queue, kind, sector, readable, writable)| Deed::Request {
                queue,
                words: [kind, 0, sector, 0],
                readable: readable / 512 * 512,
                writable: writable / 512 * 512,
            }
        ),
        6 => queue.prop_map(Deed::Kick),
        3 => (register, value).prop_map(|(register, value)| Deed::Register(register, value)),
        1 => (0u64..0x1000, prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, data)| Deed::Access(at, data)),
        6 => (0u16..9, (1u32..6, 1u32..6), prop_oneof![4 => 0u32..3000, 1 => Just(0x8000)], 0u32..4, credit())
            .prop_map(|(op, ports, length, flags, credit)| Deed::Stream { op, ports, length, flags, credit }),
        2 => (1usize..2048).prop_map(Deed::Packet),
        3 => Just(Deed::Settle),
        2 => Just(Deed::Restart),
    ];
    prop::collection::vec(deed, 1..60)
}

fn word_of() -> impl Strategy<Value = u32> {
    prop_oneof![6 => 0u32..16, 1 => 8180u32..8200, 1 => any::<u32>()]
}

fn credit() -> impl Strategy<Value = (u32, u32)> {
    (prop_oneof![4 => 0u32..0x1_0000, 1 => any::<u32>()], prop_oneof![6 => Just(0u32), 1 => any::<u32>()])
}

/// Runs the same attacks every time: a failure is one for everybody.
fn runner() -> TestRunner {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

fn withstands(victim: Victim, canaries: bool) {
    let victim = std::cell::RefCell::new(victim);
    runner()
        .run(&deeds(), |deeds| {
            attack(&mut victim.borrow_mut(), &deeds, canaries);
            Ok(())
        })
        .unwrap();
}

#[test]
fn entropy_withstands_any_guest() {
    withstands(Victim::entropy(), true);
}

#[test]
fn block_withstands_any_guest() {
    withstands(Victim::block(true), true);
}

#[test]
fn block_without_io_uring_withstands_any_guest() {
    withstands(Victim::block(false), true);
}

#[test]
fn net_withstands_any_guest() {
    withstands(Victim::net(), true);
}

#[test]
fn balloon_withstands_any_guest() {
    // A guest may put any of its pages into its balloon, so nothing is said of what they hold.
    withstands(Victim::balloon(), false);
}

#[test]
fn vsock_withstands_any_guest() {
    withstands(Victim::vsock(), true);
}

#[test]
fn devices_on_pci_withstand_any_guest() {
    withstands(Victim::entropy().on_pci(), true);
    withstands(Victim::block(true).on_pci(), true);
    withstands(Victim::net().on_pci(), true);
    withstands(Victim::balloon().on_pci(), false);
    withstands(Victim::vsock().on_pci(), true);
}
