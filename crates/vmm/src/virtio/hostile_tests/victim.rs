//! Devices to attack.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use plimsoll_protocol::definition;
use plimsoll_protocol::definition::MacAddress;
use plimsoll_units::{PAGE_SIZE, Pages};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use plimsoll_protocol::control::{NetConfig, NetSettings, RateLimit};

use super::super::balloon::Balloon;
use super::super::block::{Block, BlockConfig, Geometry, Medium};
use super::super::entropy::Entropy;
use super::super::net::{Link, Net};
use super::super::testing::{DATA, HIGH, LOW_END, Queue, Rig, WRITE, memory_file};
use super::super::vsock::testing::{Host, works};

/// Written around the hole in guest memory: no buffer of these tests is valid there, so nothing may
/// change it.
const CANARY: [u8; 8192] = [0x5a; 8192];
pub(super) const DISK: u64 = 4 << 20;

/// What a writable disk in `file` is made of.
pub(super) fn disk_of(file: File, io_uring: bool) -> BlockConfig {
    BlockConfig {
        medium: Medium::File(file.try_clone().unwrap(), Geometry::of(&file).unwrap()),
        read_only: false,
        rate: RateLimit::default(),
        id: String::new(),
        io_uring,
    }
}

/// A device under attack, and how to see that it works.
pub(super) struct Victim {
    pub(super) rig: Rig,
    pub(super) sizes: Vec<u16>,
    pub(super) works: fn(&mut Victim),
    /// The disk's file.
    pub(super) disk: Option<File>,
    /// The other end of the network's cable.
    pub(super) cable: Option<OwnedFd>,
    /// The programs at the other end of sockets.
    pub(super) host: Option<Host>,
}

impl Victim {
    pub(super) fn entropy() -> Self {
        let rig = Rig::new(|memory, notices| Entropy::new("entropy", memory, notices).unwrap());
        let works: fn(&mut Self) = |victim| {
            let mut queues = victim.start();
            assert_eq!(victim.rig.run(&mut queues[0], &[(DATA, 64, WRITE)]), 64);
        };
        Self { rig, sizes: vec![16], works, disk: None, cable: None, host: None }
    }

    pub(super) fn block(io_uring: bool) -> Self {
        let file = memory_file(DISK);
        let disk = Some(file.try_clone().unwrap());
        let rig = Rig::new(|memory, notices| {
            Block::new("disk0", disk_of(file, io_uring), memory, notices).unwrap()
        });
        let works: fn(&mut Self) = |victim| {
            let mut queues = victim.start();
            victim.disk.as_ref().unwrap().write_all_at(b"a sector", 7 * 512).unwrap();
            victim.rig.guest.write(DATA, &[[0; 8], 7u64.to_le_bytes()].concat());
            let chain = [(DATA, 16, 0), (DATA + 512, 512, WRITE), (DATA + 16, 1, WRITE)];
            assert_eq!(victim.rig.run(&mut queues[0], &chain), 513);
            assert_eq!(victim.rig.guest.read(DATA + 512, 8), b"a sector");
            assert_eq!(victim.disk.as_ref().unwrap().metadata().unwrap().len(), DISK);
        };
        Self { rig, sizes: vec![256], works, disk, cable: None, host: None }
    }

    pub(super) fn net() -> Self {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).unwrap();
        let rig = Rig::new(|memory, notices| {
            let config = NetConfig { mac: MacAddress([2; 6]), settings: NetSettings::default() };
            Net::new("net0", Link::packets(theirs).unwrap(), config, memory, notices).unwrap()
        });
        let works: fn(&mut Self) = |victim| {
            let mut queues = victim.start();
            let cable = victim.cable.as_ref().unwrap();
            let mut packet = [0; 70_000];
            while rustix::io::read(cable, &mut packet[..]).is_ok() {}
            victim.rig.guest.write(DATA, b"0123456789abpacket");
            victim.rig.run(&mut queues[1], &[(DATA, 18, 0)]);
            assert_eq!(rustix::io::read(cable, &mut packet[..]), Ok(18));
            // Packets that were sent during the attack come first, and may fill the cable.
            while rustix::io::write(cable, b"0123456789abanswer") == Err(rustix::io::Errno::AGAIN) {
                victim.rig.run(&mut queues[0], &[(DATA, 2048, WRITE)]);
            }
            loop {
                let written = victim.rig.run(&mut queues[0], &[(DATA, 2048, WRITE)]);
                if written == 18 && victim.rig.guest.read(DATA + 12, 6) == b"answer" {
                    break;
                }
            }
        };
        Self { rig, sizes: vec![256, 256], works, disk: None, cable: Some(ours), host: None }
    }

    pub(super) fn balloon() -> Self {
        let rig = Rig::new(|memory, notices| {
            Balloon::new("balloon", definition::Balloon::default(), memory, notices).unwrap().0
        });
        let works: fn(&mut Self) = |victim| {
            let mut queues = victim.start();
            let page = DATA + 0x10000;
            victim.rig.guest.write(page, &[1]);
            victim.rig.guest.write(DATA, &u32::try_from(page / PAGE_SIZE).unwrap().to_le_bytes());
            victim.rig.run(&mut queues[1], &[(DATA, 4, 0)]);
            let before = victim.rig.guest.pmap.stats().ballooned;
            victim.rig.run(&mut queues[0], &[(DATA, 4, 0)]);
            victim.rig.wait_for("a page in the balloon", |rig| {
                rig.guest.pmap.stats().ballooned == before + Pages(1)
            });
            assert_eq!(victim.rig.guest.read(page, 1), [0]);
        };
        Self { rig, sizes: vec![128; 4], works, disk: None, cable: None, host: None }
    }

    pub(super) fn vsock() -> Self {
        let host = Host::new();
        let rig = Rig::new(|memory, notices| host.device(20, memory, notices));
        let works: fn(&mut Self) = |victim| works(&mut victim.rig, victim.host.as_ref().unwrap());
        Self { rig, sizes: vec![128, 128, 16], works, disk: None, cable: None, host: Some(host) }
    }

    /// The same device on PCI.
    pub(super) fn on_pci(mut self) -> Self {
        self.rig.transport.move_to_pci();
        self
    }

    pub(super) fn start(&mut self) -> Vec<Queue> {
        let queues = self.rig.set_up(u64::MAX, &self.sizes.clone());
        self.rig.go();
        queues
    }

    pub(super) fn check(&mut self) {
        let notices = self.rig.notices.lock().unwrap().len();
        assert!(notices <= 1, "{notices} notices within one period");
        (self.works)(self);
        let stats = self.rig.guest.pmap.stats();
        assert!(stats.held <= stats.grant);
    }

    pub(super) fn place_canaries(&self) {
        self.rig.guest.write(LOW_END - 8192, &CANARY);
        self.rig.guest.write(HIGH, &CANARY);
    }

    pub(super) fn check_canaries(&self) {
        assert!(self.rig.guest.read(LOW_END - 8192, 8192) == CANARY, "the end of low memory has changed");
        assert!(self.rig.guest.read(HIGH, 8192) == CANARY, "the begin of high memory has changed");
    }
}
