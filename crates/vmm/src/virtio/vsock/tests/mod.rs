//! The device between a driver and programs of the host: `begin` is how connections begin, `data`
//! what goes through them, `rules` what happens to guests that break the rules, `load` many
//! connections and much data.

mod begin;
mod data;
mod load;
mod rules;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::super::testing::Rig;
use super::packet::{Header, Op, end};
use super::testing::{Driver, Host, packet};

/// A device with room for this many connections, and its host.
fn device(connections: u16) -> (Rig, Host) {
    let host = Host::new();
    let rig = Rig::new(|memory, notices| host.device(connections, memory, notices));
    (rig, host)
}

/// A connection as the guest knows it.
#[derive(Clone, Copy, Debug)]
struct Call {
    guest: u32,
    host: u32,
    /// Bytes that the guest has sent, and those that the device says it has passed on.
    sent: u32,
    passed: u32,
    /// The size of the device's buffer.
    buffer: u32,
    /// Bytes that the guest was sent.
    got: u32,
}

impl Call {
    fn new(guest: u32, host: u32) -> Self {
        Self { guest, host, sent: 0, passed: 0, buffer: 0, got: 0 }
    }

    /// The guest connects to port `host`, and a program takes the connection.
    fn begun(rig: &mut Rig, driver: &mut Driver, host: &Host, ports: (u32, u32)) -> (Self, UnixStream) {
        let mut call = Self::new(ports.0, ports.1);
        call.say(rig, driver, Op::Request, 0);
        assert_eq!(call.hear(rig, driver).0, Op::Response);
        let (port, end) = host.taken().pop().unwrap();
        assert_eq!(port, call.host);
        (call, end)
    }

    /// Sends a packet without data.
    fn say(&mut self, rig: &mut Rig, driver: &mut Driver, op: Op, flags: u32) {
        let header = Header { flags, taken: self.got, ..packet(op, self.guest, self.host) };
        driver.send(rig, header, &[]);
    }

    /// Sends data.
    fn send(&mut self, rig: &mut Rig, driver: &mut Driver, data: &[u8]) {
        let length = u32::try_from(data.len()).unwrap();
        let header = Header { length, taken: self.got, ..packet(Op::Data, self.guest, self.host) };
        driver.send(rig, header, data);
        self.sent = self.sent.wrapping_add(length);
    }

    /// How much it may send.
    fn room(&self) -> usize {
        (self.buffer - self.sent.wrapping_sub(self.passed)) as usize
    }

    /// The next packet, which must be about this connection.
    fn hear(&mut self, rig: &mut Rig, driver: &mut Driver) -> (Op, u32, Vec<u8>) {
        let (header, data) = driver.receive(rig);
        self.heed(header, &data);
        (Op::of(header.op).unwrap(), header.flags, data)
    }

    /// Takes note of a packet about this connection.
    fn heed(&mut self, header: Header, data: &[u8]) {
        assert_eq!((header.from_port, header.to_port), (self.host, self.guest), "{header:?}");
        if header.op != Op::Reset.number() {
            (self.buffer, self.passed) = (header.buffer, header.taken);
        }
        self.got = self.got.wrapping_add(u32::try_from(data.len()).unwrap());
    }
}

/// What `end` has to read, `length` bytes.
fn read(end: &mut UnixStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    end.read_exact(&mut bytes).unwrap();
    bytes
}

/// Bytes `at` and on of a stream that is the same in each place and differs between seeds.
fn pattern(seed: u64, at: u64, length: usize) -> Vec<u8> {
    let word =
        |word: u64| (word ^ seed << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).to_le_bytes();
    let words = at / 8..(at + length as u64).div_ceil(8);
    let skipped = usize::try_from(at % 8).unwrap();
    words.flat_map(word).skip(skipped).take(length).collect()
}

#[test]
fn a_pattern_is_the_same_in_each_place() {
    let whole = pattern(7, 0, 100);
    assert_eq!(pattern(7, 13, 50), whole[13..63]);
    assert_ne!(pattern(8, 0, 100), whole);
}

#[test]
fn a_connection_ends_from_either_side_on_either_transport() {
    for on_pci in [false, true] {
        let (mut rig, host) = device(4);
        if on_pci {
            rig.transport.move_to_pci();
        }
        let mut driver = Driver::start(&mut rig, u64::MAX, 64);
        let (mut call, mut end) = Call::begun(&mut rig, &mut driver, &host, (9, 5));
        call.send(&mut rig, &mut driver, b"question");
        assert_eq!(read(&mut end, 8), b"question");
        end.write_all(b"answer").unwrap();
        assert_eq!(call.hear(&mut rig, &mut driver), (Op::Data, 0, b"answer".to_vec()));
        call.say(&mut rig, &mut driver, Op::Shutdown, end::BOTH);
        assert_eq!(call.hear(&mut rig, &mut driver).0, Op::Reset);
        assert_eq!(end.read(&mut [0; 8]).unwrap(), 0);
        let (mut call, end) = Call::begun(&mut rig, &mut driver, &host, (9, 5));
        drop(end);
        assert_eq!(call.hear(&mut rig, &mut driver), (Op::Shutdown, end::BOTH, vec![]));
        call.say(&mut rig, &mut driver, Op::Reset, 0);
        assert!(!rig.needs_reset() && rig.notices.lock().unwrap().is_empty());
    }
}
