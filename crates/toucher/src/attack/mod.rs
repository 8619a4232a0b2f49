//! A guest that attacks its VMM: it drives the virtio devices itself, against their rules.
//!
//! Its kernel runs with `mem=` below what the machine has, with `iomem=relaxed` and without virtio
//! drivers. So the memory above and the devices are this program's alone. All addresses that it
//! gives to devices lie there, or where there is no memory: its own kernel is not harmed, and the
//! attack goes on.

mod device;

use std::time::{Duration, Instant};

use self::device::{AREA, Device};
use crate::libc_devmem::Physical;

/// Where the windows of virtio devices are, and how many there are at most.
const WINDOWS: u64 = 0xd000_0000;
const MOST_DEVICES: usize = 14;
const PAGE: usize = 4096;
/// Where rings end and other memory begins.
const DATA: usize = MOST_DEVICES * AREA;
/// Descriptors that have no end.
const LOOP: u16 = 4;

/// What an attack has done.
#[derive(Default)]
pub(crate) struct Deeds {
    pub(crate) deeds: u64,
    /// Devices that were started.
    pub(crate) started: u64,
    /// Devices that were found to refuse to go on.
    pub(crate) refused: u64,
}

struct Attack {
    random: fastrand::Rng,
    devices: Vec<Device>,
    memory: Physical,
    /// The physical address of `memory`.
    at: u64,
}

/// Attacks for `time`, with `len` bytes of memory at `at` that the kernel does not use.
pub(crate) fn run(seed: u64, time: Duration, at: u64, len: usize) -> Result<Deeds, String> {
    let memory = Physical::memory(at, len).map_err(|error| format!("/dev/mem at {at:#x}: {error}"))?;
    if len < DATA + (16 << 20) {
        return Err(format!("{len} bytes are too few"));
    }
    let mut devices = Vec::new();
    for index in 0..MOST_DEVICES {
        let address = WINDOWS + (index * PAGE) as u64;
        let window = Physical::registers(address, PAGE)
            .map_err(|error| format!("/dev/mem at {address:#x}: {error}"))?;
        devices.extend(Device::find(window, index * AREA));
    }
    if devices.is_empty() {
        return Err("no virtio device is there".to_owned());
    }
    let mut attack = Attack { random: fastrand::Rng::with_seed(seed), devices, memory, at };
    let mut deeds = Deeds::default();
    let end = Instant::now() + time;
    for index in 0..attack.devices.len() {
        attack.start(index, &mut deeds);
    }
    while Instant::now() < end {
        attack.deed(&mut deeds);
        deeds.deeds += 1;
    }
    attack.devices.iter().for_each(Device::reset);
    Ok(deeds)
}

impl Attack {
    fn start(&mut self, index: usize, deeds: &mut Deeds) {
        let device = &mut self.devices[index];
        deeds.refused += u64::from(device.refuses());
        device.start(self.at, &mut self.random);
        deeds.started += 1;
    }

    fn deed(&mut self, deeds: &mut Deeds) {
        let index = self.random.usize(..self.devices.len());
        match self.random.u8(..100) {
            0 => self.start(index, deeds),
            1 => (0..self.devices.len()).for_each(|index| self.start(index, deeds)),
            2..40 => self.request(index),
            40..50 => self.rewrite(index),
            50..55 => {
                // Descriptors that go round in a circle.
                for n in 0..LOOP {
                    let buffer = (self.address(), 64, 0);
                    self.devices[index].describe(&self.memory, 0, n, buffer, Some((n + 1) % LOOP));
                }
                self.devices[index].offer(&self.memory, 0, 0);
            }
            55..60 => {
                let by = self.random.u16(..);
                self.devices[index].skip(&self.memory, self.random.usize(..4), by);
            }
            60..65 => {
                let (offset, value) = (self.random.usize(..64) * 4, self.number());
                self.devices[index].window.write(offset, value);
            }
            65..68 => {
                let offset = 0x100 + self.random.usize(..16) * 4;
                let value = self.devices[index].window.read(offset) ^ self.number();
                self.devices[index].window.write(offset, value);
            }
            _ => self.touch(),
        }
        if self.random.u8(..4) == 0 {
            let queue = self.random.usize(..5);
            self.devices[index].kick(queue);
        }
    }

    /// Writes to pages at random, such as may be in the balloon or under a device's hand.
    fn touch(&mut self) {
        let pages = (self.memory.len() - DATA) / PAGE;
        for _ in 0..16 {
            let page = DATA + self.random.usize(..pages) * PAGE;
            self.memory.write(page + self.random.usize(..PAGE / 4) * 4, self.random.u32(..));
        }
    }

    /// A descriptor or an entry of a ring is other than before, while the device may read it.
    fn rewrite(&mut self, index: usize) {
        let (queue, n) = (self.random.usize(..4), self.random.u16(..16));
        let buffer = (self.address(), self.length(), self.random.u16(..8));
        let next = if self.random.bool() { Some(self.random.u16(..)) } else { None };
        self.devices[index].describe(&self.memory, queue, n, buffer, next);
        if self.random.bool() {
            let head = self.random.u16(..);
            self.devices[index].offer(&self.memory, queue, head);
        }
    }

    /// A chain of the form that the device wants, about something or other.
    fn request(&mut self, index: usize) {
        let queue = self.random.usize(..4);
        let head = self.random.u16(..8) * 4;
        let buffer = DATA + self.random.usize(..512) * PAGE;
        let address = self.at + buffer as u64;
        let chain: Vec<(u64, u32, u16)> = match (self.devices[index].kind, queue) {
            // Numbers of pages for the balloon, or its statistics.
            (5, 0..3) => {
                let count = self.random.u32(1..1024);
                for place in (buffer..).step_by(4).take(count as usize) {
                    let number = self.page_number();
                    self.memory.write(place, number);
                }
                vec![(address, count * 4, 0)]
            }
            // Pages that are free, as the guest says, and that it writes to all the same.
            (5, _) => vec![(self.address() & !0xfff, self.random.u32(..512) * 4096, 2)],
            (2, _) => {
                let kind = [0, 1, 4, 8, 11, self.random.u32(..)][self.random.usize(..6)];
                let words = [kind, 0, self.random.u32(..1 << 17), 0];
                (buffer..).step_by(4).zip(words).for_each(|(place, word)| self.memory.write(place, word));
                let flags = if kind == 1 { 0 } else { 2 };
                vec![(address, 16, 0), (self.address(), self.length(), flags), (address + 32, 1, 2)]
            }
            _ => vec![(self.address(), self.length(), self.random.u16(..2) * 2)],
        };
        let device = &mut self.devices[index];
        let mut parts = (head..).zip(chain).peekable();
        while let Some((n, part)) = parts.next() {
            device.describe(&self.memory, queue, n, part, parts.peek().map(|(next, _)| *next));
        }
        device.offer(&self.memory, queue, head);
        device.kick(queue);
    }

    /// The number of a page of ours, of none, of a device, or one beyond all memory.
    fn page_number(&mut self) -> u32 {
        let page = PAGE as u64;
        let (ours, pages) = ((self.at + DATA as u64) / page, (self.memory.len() - DATA) as u64 / page);
        let number = match self.random.u8(..16) {
            0 => self.random.u64(0x10_0000..1 << 32),
            1 => WINDOWS / page + self.random.u64(..16),
            2 => u64::MAX,
            // Some again and again.
            3..8 => ours + self.random.u64(..64),
            _ => ours + self.random.u64(..pages),
        };
        u32::try_from(number).unwrap_or(u32::MAX)
    }

    fn address(&mut self) -> u64 {
        let end = self.at + self.memory.len() as u64;
        match self.random.u8(..16) {
            0 => end - self.random.u64(..8192),
            1 => end + self.random.u64(..1 << 40),
            2 => u64::MAX - self.random.u64(..8192),
            3 => WINDOWS + self.random.u64(..0x1_0000),
            _ => self.at + DATA as u64 + self.random.u64(..(self.memory.len() - DATA) as u64 - (1 << 20)),
        }
    }

    fn length(&mut self) -> u32 {
        match self.random.u8(..8) {
            0 => 0,
            1 => u32::MAX,
            2 => 1 << 20,
            3..6 => self.random.u32(..256) * 512,
            _ => self.random.u32(..70_000),
        }
    }

    fn number(&mut self) -> u32 {
        if self.random.bool() { self.random.u32(..16) } else { self.random.u32(..) }
    }
}
