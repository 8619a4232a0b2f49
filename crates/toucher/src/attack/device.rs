use crate::libc_devmem::Physical;

/// Memory for the rings of one device.
pub(super) const AREA: usize = 256 << 10;
/// Memory for one queue: descriptors, then the ring of what is available, then that of what is
/// used.
const QUEUE: usize = 32 << 10;
const AVAILABLE: usize = 16 << 10;
const USED: usize = 20 << 10;
/// Most queues of a device here, and the most entries that fit.
const QUEUES: usize = AREA / QUEUE;
const ENTRIES: u32 = 1024;

/// Registers of the MMIO transport (VIRTIO 1.2, section 4.2.2), and the bits of its status.
mod register {
    pub(super) const MAGIC: usize = 0x00;
    pub(super) const DEVICE: usize = 0x08;
    pub(super) const OFFERED: usize = 0x10;
    pub(super) const OFFERED_SELECT: usize = 0x14;
    pub(super) const ACCEPTED: usize = 0x20;
    pub(super) const ACCEPTED_SELECT: usize = 0x24;
    pub(super) const QUEUE_SELECT: usize = 0x30;
    pub(super) const QUEUE_MOST: usize = 0x34;
    pub(super) const QUEUE_SIZE: usize = 0x38;
    pub(super) const QUEUE_READY: usize = 0x44;
    pub(super) const NOTIFY: usize = 0x50;
    pub(super) const STATUS: usize = 0x70;
    pub(super) const DESCRIPTORS: usize = 0x80;
    pub(super) const DRIVER: usize = 0x90;
    pub(super) const USED: usize = 0xa0;
}
const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const ACKNOWLEDGE_AND_DRIVER: u32 = 1 | 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
const NEEDS_RESET: u32 = 64;

/// A device and its queues. Nothing is read back: what the device does with them is its affair.
pub(super) struct Device {
    pub(super) window: Physical,
    /// Its type: 1 net, 2 block, 4 entropy, 5 balloon.
    pub(super) kind: u32,
    /// Where its rings are.
    base: usize,
    /// Of each queue: how many entries there are, and the index of what is available.
    queues: Vec<(u16, u16)>,
}

impl Device {
    /// The device behind `window`, if there is one, with its rings at `base`.
    pub(super) fn find(window: Physical, base: usize) -> Option<Self> {
        let kind = window.read(register::DEVICE);
        let there = window.read(register::MAGIC) == MAGIC && kind != 0;
        there.then(|| Self { window, kind, base, queues: Vec::new() })
    }

    pub(super) fn reset(&self) {
        self.window.write(register::STATUS, 0);
    }

    /// Whether it has found something that it does not put up with.
    pub(super) fn refuses(&self) -> bool {
        self.window.read(register::STATUS) & NEEDS_RESET != 0
    }

    /// Resets it under whatever it is doing, and starts it as a driver does, with queues of any
    /// size. Physical memory begins at `at`.
    pub(super) fn start(&mut self, at: u64, random: &mut fastrand::Rng) {
        self.reset();
        let window = &self.window;
        window.write(register::STATUS, ACKNOWLEDGE_AND_DRIVER);
        for half in 0..2 {
            window.write(register::OFFERED_SELECT, half);
            window.write(register::ACCEPTED_SELECT, half);
            window.write(register::ACCEPTED, window.read(register::OFFERED));
        }
        window.write(register::STATUS, ACKNOWLEDGE_AND_DRIVER | FEATURES_OK);
        self.queues.clear();
        for (n, queue) in (0..).zip(0..QUEUES) {
            window.write(register::QUEUE_SELECT, n);
            let most = window.read(register::QUEUE_MOST).min(ENTRIES);
            if most == 0 {
                break;
            }
            let size = most >> random.u32(..2);
            let Ok(entries) = u16::try_from(size) else { break };
            window.write(register::QUEUE_SIZE, size);
            let base = at + (self.base + queue * QUEUE) as u64;
            let rings = [
                (register::DESCRIPTORS, base),
                (register::DRIVER, base + AVAILABLE as u64),
                (register::USED, base + USED as u64),
            ];
            for (place, address) in rings {
                let [low, high] = halves(address);
                window.write(place, low);
                window.write(place + 4, high);
            }
            window.write(register::QUEUE_READY, 1);
            self.queues.push((entries, 0));
        }
        window.write(register::STATUS, ACKNOWLEDGE_AND_DRIVER | FEATURES_OK | DRIVER_OK);
    }

    /// Writes descriptor `n` of a queue.
    pub(super) fn describe(
        &self,
        memory: &Physical,
        queue: usize,
        n: u16,
        (address, length, flags): (u64, u32, u16),
        next: Option<u16>,
    ) {
        let Some((size, _)) = self.queues.get(queue) else { return };
        let at = self.base + queue * QUEUE + usize::from(n % size) * 16;
        let [low, high] = halves(address);
        memory.write(at, low);
        memory.write(at + 4, high);
        memory.write(at + 8, length);
        memory.write_half(at + 12, flags | u16::from(next.is_some()));
        memory.write_half(at + 14, next.unwrap_or(0));
    }

    /// Makes the chain that begins with descriptor `head` available.
    pub(super) fn offer(&mut self, memory: &Physical, queue: usize, head: u16) {
        let Some((size, index)) = self.queues.get_mut(queue) else { return };
        let ring = self.base + queue * QUEUE + AVAILABLE;
        memory.write_half(ring + 4 + usize::from(*index % *size) * 2, head);
        *index = index.wrapping_add(1);
        memory.write_half(ring + 2, *index);
    }

    /// Makes `by` more entries available than there are.
    pub(super) fn skip(&mut self, memory: &Physical, queue: usize, by: u16) {
        let Some((_, index)) = self.queues.get_mut(queue) else { return };
        *index = index.wrapping_add(by);
        memory.write_half(self.base + queue * QUEUE + AVAILABLE + 2, *index);
    }

    /// Notifies the device of a queue, or of one that it does not have.
    pub(super) fn kick(&self, queue: usize) {
        self.window.write(register::NOTIFY, u32::try_from(queue).unwrap_or(u32::MAX));
    }
}

/// The lower and the upper half of an address.
fn halves(address: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}
