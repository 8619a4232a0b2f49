//! The driver's side of a device, for tests: guest memory, a transport, and rings written by hand.

pub(super) mod transport;

use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use plimsoll_pmap::uffd::Uffd;
use plimsoll_pmap::{Config, GrantSource, GuestRam, Pmap, PpnRange, SwapSpace};
use plimsoll_sys::Event;
use plimsoll_units::{CHUNK_PAGES, Pages, Ppn};
use vm_memory::{Bytes, GuestAddress};

use self::transport::Transport;
use super::mmio::MmioTransport;
use super::negotiation::status;
use super::registers::offset;
use super::{NoticeSink, VirtioDevice, feature};

/// Guest memory: two chunks at zero, a hole of two, and one chunk.
pub(super) const LOW_END: u64 = 4 << 20;
pub(super) const HIGH: u64 = 8 << 20;
pub(super) const HIGH_END: u64 = 10 << 20;
/// Where the rings of four queues are.
pub(super) const RINGS: Range<u64> = 0x1_0000..0x5_0000;
/// Where tests put their buffers: behind the rings.
pub(super) const DATA: u64 = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(20);

/// Descriptor flags.
pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

struct NoMore;

impl GrantSource for NoMore {
    fn want(&self, _total: Pages) {}
}

/// Guest memory with its fault thread.
pub(crate) struct Guest {
    pub(crate) pmap: Arc<Pmap>,
    stop: Event,
    faults: Option<JoinHandle<()>>,
}

impl Guest {
    /// Guest memory that may hold `grant` pages at once.
    pub(super) fn new(grant: Pages) -> Self {
        Self::with(grant, None)
    }

    /// Guest memory that may hold `grant` pages at once, and has swap space for all of it.
    pub(super) fn with_swap(grant: Pages) -> Self {
        let slots = Pages(3 * CHUNK_PAGES);
        let file = memory_file(slots.bytes().0);
        Self::with(grant, Some(SwapSpace { file: file.into(), slots, encrypt: false }))
    }

    fn with(grant: Pages, swap: Option<SwapSpace>) -> Self {
        let regions = vec![
            PpnRange::new(Ppn(0), Pages(2 * CHUNK_PAGES)),
            PpnRange::new(Ppn::of_address(HIGH), Pages(CHUNK_PAGES)),
        ];
        Self::made(regions, grant, swap)
    }

    /// Guest memory of `regions`, all of which it may hold.
    pub(crate) fn of(regions: Vec<PpnRange>) -> Self {
        let grant = regions.iter().map(|region| region.pages).sum();
        Self::made(regions, grant, None)
    }

    fn made(regions: Vec<PpnRange>, grant: Pages, swap: Option<SwapSpace>) -> Self {
        let config = Config {
            regions,
            uffd: Uffd::open().unwrap(),
            huge_pages: false,
            grant,
            store: Pages::ZERO,
            swap,
        };
        let pmap = Pmap::new(config, Arc::new(NoMore)).unwrap();
        let stop = Event::new().unwrap();
        let (server, server_stop) = (Arc::clone(&pmap), stop.clone());
        let faults = Some(thread::spawn(move || server.serve_faults(&server_stop).unwrap()));
        Self { pmap, stop, faults }
    }

    pub(crate) fn ram(&self) -> &GuestRam {
        self.pmap.ram()
    }

    pub(super) fn write(&self, address: u64, bytes: &[u8]) {
        self.ram().write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub(crate) fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.ram().read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    pub(super) fn write_u16(&self, address: u64, value: u16) {
        self.write(address, &value.to_le_bytes());
    }

    fn read_u16(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.read(address, 2).try_into().unwrap())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop.signal();
        self.faults.take().unwrap().join().unwrap();
    }
}

/// A device in its transport, and the guest in front of it.
pub(super) struct Rig {
    // Before the guest: the device's thread may need the fault thread to end.
    pub(super) transport: Transport,
    pub(super) notices: Arc<Mutex<Vec<String>>>,
    pub(super) guest: Arc<Guest>,
    /// Where its queues' rings begin.
    pub(super) rings: u64,
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A failed test ends: a device that waits for memory gets it.
        if thread::panicking() {
            self.guest.pmap.add_grant(Pages(3 * CHUNK_PAGES));
        }
    }
}

impl Rig {
    pub(super) fn new<D: VirtioDevice + 'static>(device: impl FnOnce(&Arc<Pmap>, NoticeSink) -> D) -> Self {
        Self::on(Arc::new(Guest::new(Pages(3 * CHUNK_PAGES))), device)
    }

    /// A device of `guest`, which may have others.
    pub(super) fn on<D: VirtioDevice + 'static>(
        guest: Arc<Guest>,
        device: impl FnOnce(&Arc<Pmap>, NoticeSink) -> D,
    ) -> Self {
        let notices = Arc::new(Mutex::new(vec![]));
        let sink = Arc::clone(&notices);
        let device = device(&guest.pmap, Arc::new(move |notice| sink.lock().unwrap().push(notice)));
        let transport = Transport::Mmio(MmioTransport::new(Box::new(device)).unwrap());
        Self { transport, notices, guest, rings: RINGS.start }
    }

    pub(super) fn get(&mut self, register: u64) -> u32 {
        self.transport.get(register)
    }

    pub(super) fn set(&mut self, register: u64, value: u32) {
        self.transport.set(register, value);
    }

    pub(super) fn offered(&mut self) -> u64 {
        self.set(offset::DEVICE_FEATURES_SEL, 1);
        let high = self.get(offset::DEVICE_FEATURES);
        self.set(offset::DEVICE_FEATURES_SEL, 0);
        u64::from(high) << 32 | u64::from(self.get(offset::DEVICE_FEATURES))
    }

    /// Resets the device and agrees on those of `features` that are offered, and on the queues'
    /// sizes.
    pub(super) fn set_up(&mut self, features: u64, sizes: &[u16]) -> Vec<Queue> {
        self.set(offset::STATUS, 0);
        let features = features & self.offered() | feature::VERSION_1;
        self.set(offset::STATUS, status::ACKNOWLEDGE);
        self.set(offset::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        self.set(offset::DRIVER_FEATURES_SEL, 0);
        self.set(offset::DRIVER_FEATURES, u32::try_from(features & 0xffff_ffff).unwrap());
        self.set(offset::DRIVER_FEATURES_SEL, 1);
        self.set(offset::DRIVER_FEATURES, u32::try_from(features >> 32).unwrap());
        let agreed = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        self.set(offset::STATUS, agreed);
        assert_eq!(self.get(offset::STATUS), agreed);
        let queues: Vec<_> =
            sizes.iter().zip(0..).map(|(&size, index)| Queue::new(self.rings, index, size)).collect();
        for queue in &queues {
            // Fresh rings: what an earlier round left must not be taken for new.
            self.guest.write(queue.descriptors(), &[0; 0x10000]);
            self.set_queue(queue.index, queue.size, queue.descriptors(), queue.available(), queue.used());
            assert_eq!(self.get(offset::QUEUE_READY), 1);
        }
        queues
    }

    pub(super) fn set_queue(&mut self, index: u32, size: u16, descriptors: u64, driver: u64, device: u64) {
        self.set(offset::QUEUE_SEL, index);
        self.set(offset::QUEUE_NUM, size.into());
        for (register, address) in [
            (offset::QUEUE_DESC_LOW, descriptors),
            (offset::QUEUE_DRIVER_LOW, driver),
            (offset::QUEUE_DEVICE_LOW, device),
        ] {
            self.set(register, u32::try_from(address & 0xffff_ffff).unwrap());
            self.set(register + 4, u32::try_from(address >> 32).unwrap());
        }
        self.set(offset::QUEUE_READY, 1);
    }

    /// Declares the driver ready.
    pub(super) fn go(&mut self) {
        let status = self.get(offset::STATUS) | status::DRIVER_OK;
        self.set(offset::STATUS, status);
    }

    pub(super) fn kick(&mut self, queue: &Queue) {
        self.set(offset::QUEUE_NOTIFY, queue.index);
    }

    /// Notifies as a driver does that has agreed on `EVENT_IDX`: only when the device asked for
    /// what was made available since the last call (VIRTIO 1.2, section 2.7.10).
    pub(super) fn kick_when_asked(&mut self, queue: &mut Queue) {
        let asked = self.guest.read_u16(queue.used() + 4 + 8 * u64::from(queue.size));
        let (new, old) =
            (queue.available_index, std::mem::replace(&mut queue.kicked_index, queue.available_index));
        if new.wrapping_sub(asked).wrapping_sub(1) < new.wrapping_sub(old) {
            self.kick(queue);
        }
    }

    pub(super) fn needs_reset(&mut self) -> bool {
        self.get(offset::STATUS) & status::NEEDS_RESET != 0
    }

    /// Makes a chain available, notifies, and waits until it comes back; returns how many bytes
    /// were written to it.
    pub(super) fn run(&mut self, queue: &mut Queue, buffers: &[Buffer]) -> u32 {
        let head = queue.add(&self.guest, buffers);
        self.kick(queue);
        let (used, written) = self.wait_used(queue);
        assert_eq!(used, u32::from(head));
        written
    }

    /// Waits for the next used chain: its head and the bytes written to it.
    pub(super) fn wait_used(&mut self, queue: &mut Queue) -> (u32, u32) {
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(used) = queue.next_used(&self.guest) {
                return used;
            }
            assert!(!self.needs_reset(), "the device stopped: {:?}", self.notices.lock().unwrap());
            assert!(Instant::now() < until, "no buffer came back: {:?}", self.guest.pmap);
            thread::sleep(Duration::from_micros(100));
        }
    }

    /// Waits until `condition` holds.
    pub(super) fn wait_for(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let until = Instant::now() + DEADLINE;
        while !condition(self) {
            assert!(Instant::now() < until, "waited in vain: {what}");
            thread::sleep(Duration::from_micros(200));
        }
    }
}

/// A buffer of a chain: address, length, flags beside `NEXT`.
pub(super) type Buffer = (u64, u32, u16);

/// A driver's queue.
#[derive(Debug)]
pub(super) struct Queue {
    rings: u64,
    pub(super) index: u32,
    pub(super) size: u16,
    next_descriptor: u16,
    available_index: u16,
    /// The available index when [`Rig::kick_when_asked`] was last called.
    kicked_index: u16,
    used_index: u16,
}

impl Queue {
    fn new(rings: u64, index: u32, size: u16) -> Self {
        Self { rings, index, size, next_descriptor: 0, available_index: 0, kicked_index: 0, used_index: 0 }
    }

    pub(super) fn descriptors(&self) -> u64 {
        self.rings + 0x1_0000 * u64::from(self.index)
    }

    pub(super) fn available(&self) -> u64 {
        self.descriptors() + 0x4000
    }

    pub(super) fn used(&self) -> u64 {
        self.descriptors() + 0x8000
    }

    /// Makes a chain available without a notification; returns its head. Descriptors are taken in
    /// turn: no more may be outstanding than the queue has.
    pub(super) fn add(&mut self, guest: &Guest, buffers: &[Buffer]) -> u16 {
        let head = self.next_descriptor;
        for (index, &(address, length, flags)) in buffers.iter().enumerate() {
            let at = self.next_descriptor;
            self.next_descriptor = (at + 1) % self.size;
            let next = if index + 1 < buffers.len() { NEXT } else { 0 };
            self.write_descriptor(guest, at, (address, length, flags | next), self.next_descriptor);
        }
        self.make_available(guest, head);
        head
    }

    pub(super) fn write_descriptor(&self, guest: &Guest, index: u16, buffer: Buffer, next: u16) {
        guest.write(self.descriptors() + 16 * u64::from(index), &descriptor(buffer, next));
    }

    pub(super) fn make_available(&mut self, guest: &Guest, head: u16) {
        guest.write_u16(self.available() + 4 + 2 * u64::from(self.available_index % self.size), head);
        self.set_available(guest, self.available_index.wrapping_add(1));
    }

    pub(super) fn set_available(&mut self, guest: &Guest, index: u16) {
        self.available_index = index;
        guest.write_u16(self.available() + 2, index);
    }

    /// Moves the available index on, over whatever the ring holds there.
    pub(super) fn advance(&mut self, guest: &Guest, by: u16) {
        self.set_available(guest, self.available_index.wrapping_add(by));
    }

    /// Checks that no more chains came back than were made available, and each by its number.
    pub(super) fn check_used(&self, guest: &Guest) {
        let used = guest.read_u16(self.used() + 2);
        assert!(used <= self.available_index, "{used} chains came back of {}", self.available_index);
        for entry in 0..used.min(self.size) {
            let head = guest.read_u16(self.used() + 4 + 8 * u64::from(entry));
            assert!(head < self.size, "chain {head} came back of a queue of {}", self.size);
        }
    }

    /// The next chain that came back, if any.
    pub(super) fn next_used(&mut self, guest: &Guest) -> Option<(u32, u32)> {
        if guest.read_u16(self.used() + 2) == self.used_index {
            return None;
        }
        let element = guest.read(self.used() + 4 + 8 * u64::from(self.used_index % self.size), 8);
        self.used_index = self.used_index.wrapping_add(1);
        let word = |at: usize| u32::from_le_bytes(element[at..at + 4].try_into().unwrap());
        Some((word(0), word(4)))
    }
}

/// A file of `len` zeros.
pub(super) fn memory_file(len: u64) -> File {
    let file = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let file = File::from(file);
    file.set_len(len).unwrap();
    file
}

/// A descriptor as it is in memory.
pub(super) fn descriptor((address, length, flags): Buffer, next: u16) -> Vec<u8> {
    let mut bytes = address.to_le_bytes().to_vec();
    bytes.extend(length.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(next.to_le_bytes());
    bytes
}
