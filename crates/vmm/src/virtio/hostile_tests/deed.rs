//! What a guest may do to a device, and what must hold whatever it has done.

use std::sync::Arc;

use super::super::registers::offset;
use super::super::testing::{Buffer, DATA, INDIRECT, Queue, RINGS, WRITE, descriptor};
use super::super::vsock::testing::any_packet;
use super::{TABLE, Victim};

/// Registers that deeds write to.
pub(super) const REGISTERS: [u64; 13] = [
    offset::STATUS,
    offset::QUEUE_SEL,
    offset::QUEUE_NUM,
    offset::QUEUE_READY,
    offset::QUEUE_NOTIFY,
    offset::DRIVER_FEATURES,
    offset::DRIVER_FEATURES_SEL,
    offset::QUEUE_DESC_LOW,
    offset::QUEUE_DRIVER_LOW,
    offset::QUEUE_DEVICE_LOW,
    offset::INTERRUPT_ACK,
    offset::CONFIG + 4,
    offset::CONFIG + 12,
];

/// One thing that a guest does.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    Register(u64, u32),
    Access(u64, Vec<u8>),
    Descriptor {
        queue: usize,
        index: u16,
        buffer: Buffer,
        next: u16,
    },
    /// A descriptor in the memory that indirect tables are taken from.
    Indirect {
        index: u16,
        buffer: Buffer,
        next: u16,
    },
    Available {
        queue: usize,
        slot: u16,
        head: u16,
    },
    AvailableIndex {
        queue: usize,
        index: u16,
    },
    /// A few entries more, which is what a guest does that wants to be heard.
    Advance {
        queue: usize,
        by: u16,
    },
    /// A chain of the form that devices want, about something or other.
    Request {
        queue: usize,
        words: [u32; 4],
        readable: u32,
        writable: u32,
    },
    Kick(usize),
    /// A packet of a vsock driver; nothing, to other devices.
    Stream {
        op: u16,
        ports: (u32, u32),
        length: u32,
        flags: u32,
        credit: (u32, u32),
    },
    /// Something from the other side of the device.
    Packet(usize),
    Settle,
    Restart,
}

impl Deed {
    /// After deeds that all are plain, used rings hold what the device wrote there, and chains were
    /// made available by [`Deed::Advance`] and [`Deed::Request`] only.
    fn is_plain(&self) -> bool {
        match self {
            Self::Access(..) | Self::AvailableIndex { .. } => false,
            Self::Register(register, _) => {
                !(offset::QUEUE_DESC_LOW..=offset::QUEUE_DEVICE_LOW + 4).contains(register)
            }
            Self::Descriptor { buffer: (address, length, flags), .. }
            | Self::Indirect { buffer: (address, length, flags), .. } => {
                let end = address.saturating_add((*length).into());
                flags & WRITE == 0 || end <= RINGS.start || *address >= RINGS.end
            }
            _ => true,
        }
    }

    fn commit(&self, victim: &mut Victim, queues: &mut Vec<Queue>) {
        let guest = Arc::clone(&victim.rig.guest);
        let count = queues.len();
        match *self {
            Self::Register(register, value) => victim.rig.set(register, value),
            Self::Access(at, ref data) => {
                victim.rig.transport.access(at, data);
            }
            Self::Descriptor { queue, index, buffer: (address, length, flags), next } => {
                let queue = &queues[queue % count];
                let buffer = match flags & INDIRECT {
                    0 => (address, length, flags),
                    _ => (TABLE, length % 12 * 16, flags),
                };
                queue.write_descriptor(&guest, index % queue.size, buffer, next);
            }
            Self::Indirect { index, buffer, next } => {
                guest.write(TABLE + 16 * u64::from(index), &descriptor(buffer, next));
            }
            Self::Available { queue, slot, head } => {
                let queue = &queues[queue % count];
                guest.write_u16(queue.available() + 4 + 2 * u64::from(slot % queue.size), head);
            }
            Self::AvailableIndex { queue, index } => queues[queue % count].set_available(&guest, index),
            Self::Advance { queue, by } => queues[queue % count].advance(&guest, by),
            Self::Request { queue, words, readable, writable } => {
                let header = DATA + 0xf000;
                guest.write(header, &words.map(u32::to_le_bytes).concat());
                let chain = [(header, 16, 0), (DATA, readable, 0), (DATA, writable, WRITE), (DATA, 1, WRITE)];
                queues[queue % count].add(&guest, &chain);
            }
            Self::Kick(queue) => {
                let index = queues[queue % count].index;
                victim.rig.set(offset::QUEUE_NOTIFY, index);
            }
            Self::Stream { op, ports, length, flags, credit } if victim.host.is_some() => {
                let header = DATA + 0xe000;
                guest.write(header, &any_packet(op, ports, length, flags, credit));
                let queue = &mut queues[1 % count];
                queue.add(&guest, &[(header, 44, 0), (DATA, length, 0)]);
                let index = queue.index;
                victim.rig.set(offset::QUEUE_NOTIFY, index);
            }
            Self::Stream { .. } => {}
            Self::Packet(length) => {
                if let Some(cable) = &victim.cable {
                    // A full cable loses it.
                    rustix::io::write(cable, &vec![7; length]).ok();
                }
                if let Some(host) = &victim.host {
                    host.stir(length);
                }
            }
            Self::Settle => victim.rig.transport.barrier(),
            Self::Restart => *queues = victim.start(),
        }
    }
}

/// Attacks a device with `deeds`. Nothing hangs, nothing but the guest's own memory changes, no
/// used ring is ahead of what was made available, and after a reset the device works again.
///
/// With `canaries` no page that the guest has not named changes: a guest may put any of its pages
/// into its balloon.
pub(super) fn attack(victim: &mut Victim, deeds: &[Deed], canaries: bool) {
    // Numbers that are pages, lengths and requests when a device takes them for such.
    let words: Vec<u8> = (0..0x4000u32).flat_map(|i| (i * 7 % 1100 % (i % 16 + 1)).to_le_bytes()).collect();
    victim.rig.guest.write(DATA, &words);
    victim.place_canaries();
    let mut queues = victim.start();
    for deed in deeds {
        deed.commit(victim, &mut queues);
    }
    victim.rig.transport.barrier();
    victim.rig.set(offset::STATUS, 0);
    // A balloon takes pages for pages of its guest's choosing, those of the rings among them.
    if canaries && deeds.iter().all(Deed::is_plain) {
        queues.iter().for_each(|queue| queue.check_used(&victim.rig.guest));
    }
    if canaries {
        victim.check_canaries();
    }
    victim.check();
}
