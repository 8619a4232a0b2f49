//! Sequences of deeds that a fuzzer chooses, on any device.

use std::cell::RefCell;

use arbitrary::{Result, Unstructured};

use super::super::registers::offset;
use super::super::testing::{Buffer, DATA, HIGH, HIGH_END, LOW_END};
use super::Victim;
use super::deed::{Deed, REGISTERS, attack};

/// Deeds in one attack: more only repeat what fewer do.
const MOST: usize = 80;

/// A disk; the first bit says whether with an io_uring.
pub(crate) fn block(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    match first & 1 {
        0 => device(rest, 0, || Victim::block(false), true),
        _ => device(rest, 1, || Victim::block(true), true),
    }
}

pub(crate) fn net(input: &[u8]) {
    device(input, 0, Victim::net, true);
}

pub(crate) fn entropy(input: &[u8]) {
    device(input, 0, Victim::entropy, true);
}

pub(crate) fn balloon(input: &[u8]) {
    // A guest may put any of its pages into its balloon, so nothing is said of what they hold.
    device(input, 0, Victim::balloon, false);
}

pub(crate) fn vsock(input: &[u8]) {
    device_by(input, 0, Victim::vsock, true, stream_deed);
}

/// On PCI; the first bit says whether a disk.
pub(crate) fn pci(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    match first & 1 {
        0 => device(rest, 0, || Victim::entropy().on_pci(), true),
        _ => device(rest, 1, || Victim::block(true).on_pci(), true),
    }
}

fn device(input: &[u8], number: usize, make: fn() -> Victim, canaries: bool) {
    device_by(input, number, make, canaries, deed);
}

/// Attacks device `number`, which all inputs of a process share, with deeds that `deed` makes. Each
/// input finds fresh memory.
fn device_by(
    input: &[u8],
    number: usize,
    make: fn() -> Victim,
    canaries: bool,
    deed: fn(&mut Unstructured<'_>) -> Result<Deed>,
) {
    thread_local! {
        static VICTIMS: RefCell<[Option<Victim>; 2]> = const { RefCell::new([None, None]) };
    }
    VICTIMS.with_borrow_mut(|victims| {
        let victim = victims[number].get_or_insert_with(make);
        // At most one comes in a period, and periods pass.
        victim.rig.notices.lock().unwrap().clear();
        attack(victim, &deeds(input, deed), canaries);
        victim.rig.set(offset::STATUS, 0);
        // Fails where a page is pinned.
        victim.rig.guest.pmap.reset().expect("a device that was reset holds on to no page");
    });
}

fn deeds(input: &[u8], deed: fn(&mut Unstructured<'_>) -> Result<Deed>) -> Vec<Deed> {
    let mut input = Unstructured::new(input);
    let next = || if input.is_empty() { None } else { deed(&mut input).ok() };
    std::iter::from_fn(next).take(MOST).collect()
}

fn deed(input: &mut Unstructured<'_>) -> Result<Deed> {
    Ok(match input.int_in_range(0..=15u8)? {
        0..=2 => Deed::Descriptor {
            queue: queue(input)?,
            index: small(input, 12)?,
            buffer: buffer(input)?,
            next: small(input, 12)?,
        },
        3 => Deed::Indirect {
            index: input.int_in_range(0..=15)?,
            buffer: buffer(input)?,
            next: small(input, 12)?,
        },
        4 => Deed::Available {
            queue: queue(input)?,
            slot: input.int_in_range(0..=15)?,
            head: small(input, 12)?,
        },
        5 => Deed::AvailableIndex { queue: queue(input)?, index: input.arbitrary()? },
        6 | 7 => Deed::Advance { queue: queue(input)?, by: input.int_in_range(1..=3)? },
        8 | 9 => Deed::Request {
            queue: queue(input)?,
            words: [small(input, 16)?.into(), 0, number(input)?, 0],
            readable: u32::from(input.int_in_range(0..=5u8)?) * 512,
            writable: u32::from(input.int_in_range(0..=5u8)?) * 512,
        },
        10 | 11 => Deed::Kick(queue(input)?),
        12 => Deed::Register(*input.choose(&REGISTERS)?, number(input)?),
        13 => {
            let length = input.int_in_range(1..=8)?;
            Deed::Access(input.int_in_range(0..=0xfff)?, input.bytes(length)?.to_vec())
        }
        14 => Deed::Packet(input.int_in_range(1..=2047)?),
        _ if input.ratio(1, 3)? => Deed::Restart,
        _ => Deed::Settle,
    })
}

fn queue(input: &mut Unstructured<'_>) -> Result<usize> {
    input.int_in_range(0..=3)
}

/// A packet of a vsock driver, or any other deed.
fn stream_deed(input: &mut Unstructured<'_>) -> Result<Deed> {
    if input.ratio(1, 3)? {
        return deed(input);
    }
    // The longest is more than a guest has credit for.
    let length = if input.ratio(1, 8)? { 0x8001 } else { input.int_in_range(0..=3000u16)?.into() };
    Ok(Deed::Stream {
        op: small(input, 9)?,
        ports: (input.int_in_range(1..=5)?, input.int_in_range(1..=5)?),
        length,
        flags: input.int_in_range(0..=3)?,
        credit: (number(input)?.wrapping_shl(8), if input.ratio(1, 6)? { input.arbitrary()? } else { 0 }),
    })
}

/// Mostly a number below `below`.
fn small(input: &mut Unstructured<'_>, below: u8) -> Result<u16> {
    let byte: u8 = input.arbitrary()?;
    if byte == u8::MAX { input.arbitrary() } else { Ok((byte % below).into()) }
}

/// A number of a register or a sector.
fn number(input: &mut Unstructured<'_>) -> Result<u32> {
    Ok(match input.int_in_range(0..=7u8)? {
        0 => input.arbitrary()?,
        1 => 0x1_0000,
        2 => 8180 + u32::from(input.int_in_range(0..=20u8)?),
        _ => input.int_in_range(0..=15u8)?.into(),
    })
}

fn buffer(input: &mut Unstructured<'_>) -> Result<Buffer> {
    let flags = small(input, 8)?;
    // Across an end of guest memory: refused.
    if input.ratio(1u8, 8)? {
        let back = input.int_in_range(1..=8191u32)?;
        let beyond = input.int_in_range(1..=0xf_ffffu32)?;
        let end = *input.choose(&[LOW_END, HIGH, HIGH_END])?;
        return Ok((end - u64::from(back), back + beyond, flags));
    }
    let length: u32 = match input.int_in_range(0..=15u8)? {
        0 => 0,
        1..=5 => input.int_in_range(1..=63u8)?.into(),
        6 | 7 => 16,
        8 | 9 => 512,
        10 => 513,
        11 => 4096,
        12 => 0x1_0000,
        13 => 2 << 20,
        _ => input.arbitrary()?,
    };
    let address: u64 = match input.int_in_range(0..=15u8)? {
        0..=6 => DATA + u64::from(input.int_in_range(0..=0x7fffu16)?),
        7..=9 => input.int_in_range(0x1_0000..=0x4_ffff)?,
        10 => input.int_in_range(LOW_END..=HIGH - 0x1_0000)?,
        11 => input.int_in_range(HIGH_END..=u64::MAX)?,
        12 => 0,
        _ => input.int_in_range(u64::MAX - 0x1_0000..=u64::MAX)?,
    };
    // What is placed in RAM may not reach a canary.
    Ok((address, if address < LOW_END { length.min(2 << 20) } else { length }, flags))
}
