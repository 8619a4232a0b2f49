//! Both sides of a vsock device, for tests: programs of the host, and the guest's driver.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use plimsoll_pmap::Pmap;
use plimsoll_protocol::control::VsockConfig;
use rustix::net::{RecvFlags, SendFlags};

use super::super::NoticeSink;
use super::super::testing::{DATA, Queue, Rig, WRITE};
use super::packet::end::BOTH;
use super::packet::{HEADER, HOST_CID, Header, Op, STREAM};
use super::{Dial, QUEUE_SIZES, RECEIVE, TRANSMIT, Vsock, VsockHandle};

/// The guest's context identifier.
pub(in super::super) const CID: u32 = 52;
/// Ports of the host at which nobody takes a connection: this one and those above.
pub(super) const DESERTED: u32 = 1 << 20;
/// The room of each of the driver's buffers.
pub(super) const ROOM: u64 = 8192;
/// Where the driver keeps these buffers, and the packet that it sends.
const BUFFERS: u64 = DATA + (1 << 20);
const PACKET: u64 = DATA + 0x4_0000;

/// The host of a device.
#[derive(Clone)]
pub(in super::super) struct Host(Arc<Ends>);

struct Ends {
    address: SocketAddr,
    /// The listener, until the device has it.
    listener: Mutex<Option<OwnedFd>>,
    handle: OnceLock<VsockHandle>,
    /// The ends of connections that the guest has begun, with their ports, in order.
    taken: Mutex<Vec<(u32, UnixStream)>>,
    /// Programs that have connected.
    clients: Mutex<Vec<UnixStream>>,
}

impl Host {
    pub(in super::super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("plimsoll-vsock-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        Self(Arc::new(Ends {
            address,
            listener: Mutex::new(Some(listener.into())),
            handle: OnceLock::new(),
            taken: Mutex::default(),
            clients: Mutex::default(),
        }))
    }

    /// The device of this host.
    pub(in super::super) fn device(
        &self,
        connections: u16,
        memory: &Arc<Pmap>,
        notices: NoticeSink,
    ) -> Vsock {
        let ends = Arc::clone(&self.0);
        let dial: Dial = Arc::new(move |id, port| {
            let pair = (port < DESERTED).then(|| UnixStream::pair().unwrap());
            let (ours, theirs) = pair.unzip();
            ends.taken.lock().unwrap().extend(ours.map(|ours| (port, ours)));
            ends.handle.get().unwrap().dialed(id, theirs.map(OwnedFd::from));
            true
        });
        let config = VsockConfig { cid: CID, connections };
        let listener = self.0.listener.lock().unwrap().take();
        let (device, handle) = Vsock::new("vsock", config, listener, dial, memory, notices).unwrap();
        self.0.handle.set(handle).unwrap();
        device
    }

    /// The ends of connections that the guest has begun.
    pub(super) fn taken(&self) -> MutexGuard<'_, Vec<(u32, UnixStream)>> {
        self.0.taken.lock().unwrap()
    }

    /// A program that connects to the device.
    pub(super) fn client(&self, line: &str) -> UnixStream {
        let mut client = UnixStream::connect_addr(&self.0.address).unwrap();
        // A device that has no room for it may hang up before it has written.
        client.write_all(line.as_bytes()).ok();
        client
    }

    /// Something that programs of the host may do; what, by `choice`. Never waits.
    pub(in super::super) fn stir(&self, choice: usize) {
        let mut clients = self.0.clients.lock().unwrap();
        let mut taken = self.taken();
        match choice % 5 {
            // A full backlog would make it wait.
            0 if clients.len() < 50 => {
                clients.push(self.client(["CONNECT 3\n", "CONNECT 4", "nonsense\n"][choice / 5 % 3]));
            }
            0 | 1 => clients.clear(),
            2 => taken.clear(),
            _ => {
                for end in clients.iter().chain(taken.iter().map(|(_, end)| end)) {
                    // A full socket, or one whose other end is gone, takes nothing.
                    let bytes = vec![choice.to_le_bytes()[0]; choice];
                    rustix::net::send(end, &bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).ok();
                    if choice.is_multiple_of(2) {
                        rustix::net::recv(end, &mut vec![0; choice][..], RecvFlags::DONTWAIT).ok();
                    }
                }
            }
        }
    }

    /// Ends all programs of the host.
    pub(in super::super) fn leave(&self) {
        self.0.clients.lock().unwrap().clear();
        self.taken().clear();
    }
}

/// The guest's driver.
pub(super) struct Driver {
    receive: Queue,
    transmit: Queue,
    /// Buffers given to the device, and those that have come back.
    given: u64,
    back: u64,
}

impl Driver {
    /// Sets the device of `rig` up, with `buffers` for what it sends: 128 at most.
    pub(super) fn start(rig: &mut Rig, features: u64, buffers: u64) -> Self {
        let mut queues = rig.set_up(features, QUEUE_SIZES);
        rig.go();
        let (transmit, receive) = (queues.remove(TRANSMIT), queues.remove(RECEIVE));
        let mut driver = Self { receive, transmit, given: 0, back: 0 };
        driver.give(rig, buffers);
        driver
    }

    /// Gives the device `count` buffers more.
    pub(super) fn give(&mut self, rig: &mut Rig, count: u64) {
        let places = u64::from(self.receive.size);
        for _ in 0..count {
            let at = BUFFERS + ROOM * (self.given % places);
            self.receive.add(&rig.guest, &[(at, u32::try_from(ROOM).unwrap(), WRITE)]);
            self.given += 1;
        }
        rig.kick(&self.receive);
    }

    /// Sends a packet and waits until the device has taken it.
    pub(super) fn send(&mut self, rig: &mut Rig, header: Header, data: &[u8]) {
        rig.guest.write(PACKET, &header.bytes());
        rig.guest.write(PACKET + HEADER as u64, data);
        // Header and data in buffers that divide both somewhere.
        let length = u32::try_from(HEADER + data.len()).unwrap();
        let first = length * 2 / 3;
        let rest = (PACKET + u64::from(first), length - first, 0);
        rig.run(&mut self.transmit, &[(PACKET, first, 0), rest]);
    }

    /// The next packet that has come already, if any.
    pub(super) fn poll(&mut self, rig: &mut Rig) -> Option<(Header, Vec<u8>)> {
        let (head, written) = self.receive.next_used(&rig.guest)?;
        Some(self.taken(rig, head, written))
    }

    /// Waits for the next packet.
    pub(super) fn receive(&mut self, rig: &mut Rig) -> (Header, Vec<u8>) {
        let (head, written) = rig.wait_used(&mut self.receive);
        self.taken(rig, head, written)
    }

    /// Waits for the next packet between these ports; those before it are lost.
    pub(super) fn receive_between(&mut self, rig: &mut Rig, host: u32, guest: u32) -> (Header, Vec<u8>) {
        loop {
            let packet = self.receive(rig);
            if (packet.0.from_port, packet.0.to_port) == (host, guest) {
                return packet;
            }
        }
    }

    fn taken(&mut self, rig: &mut Rig, head: u32, written: u32) -> (Header, Vec<u8>) {
        let place = self.back % u64::from(self.receive.size);
        assert_eq!(u64::from(head), place, "buffers come back in their order");
        self.back += 1;
        let bytes = rig.guest.read(BUFFERS + ROOM * place, written as usize);
        self.give(rig, 1);
        let (header, data) = bytes.split_first_chunk::<HEADER>().expect("a packet has a header");
        let header = Header::read(header);
        assert_eq!((header.from_cid, header.to_cid), (HOST_CID, CID.into()));
        assert_eq!(header.length as usize, data.len());
        (header, data.to_vec())
    }
}

/// A packet of the guest, between its port `guest` and the host's port `host`, with plenty of
/// credit.
pub(super) fn packet(op: Op, guest: u32, host: u32) -> Header {
    Header {
        from_cid: CID.into(),
        to_cid: HOST_CID,
        from_port: guest,
        to_port: host,
        length: 0,
        kind: STREAM,
        op: op.number(),
        flags: 0,
        buffer: 1 << 20,
        taken: 0,
    }
}

/// Any packet of a guest that may mean harm, for attacks on any device: the bytes of its header.
pub(in super::super) fn any_packet(
    op: u16,
    ports: (u32, u32),
    length: u32,
    flags: u32,
    credit: (u32, u32),
) -> Vec<u8> {
    let (guest, host) = ports;
    let (buffer, taken) = credit;
    let header = Header { op, length, flags, buffer, taken, ..packet(Op::Data, guest, host) };
    header.bytes().to_vec()
}

/// Shows that the device works: a connection to port 5, data both ways, and its end.
pub(in super::super) fn works(rig: &mut Rig, host: &Host) {
    host.leave();
    let mut driver = Driver::start(rig, u64::MAX, 64);
    loop {
        driver.send(rig, packet(Op::Request, 9, 5), &[]);
        let (header, _) = driver.receive_between(rig, 5, 9);
        if header.op == Op::Response.number() {
            break;
        }
        // Programs that came during an attack, and have not been seen to be gone, take all places.
        assert_eq!(header.op, Op::Reset.number());
    }
    let (port, mut end) = host.taken().pop().unwrap();
    assert_eq!(port, 5);
    driver.send(rig, Header { length: 5, ..packet(Op::Data, 9, 5) }, b"hello");
    let mut hello = [0; 5];
    end.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
    end.write_all(b"answer").unwrap();
    assert_eq!(driver.receive_between(rig, 5, 9).1, b"answer");
    driver.send(rig, Header { flags: BOTH, taken: 6, ..packet(Op::Shutdown, 9, 5) }, &[]);
    assert_eq!(driver.receive_between(rig, 5, 9).0.op, Op::Reset.number());
    assert_eq!(end.read(&mut hello).unwrap(), 0);
}
