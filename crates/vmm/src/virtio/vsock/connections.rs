//! All connections of a device, apart from its queues: packets of the guest come in, packets for
//! the guest are asked for, and descriptors of the host are named to be waited for.
//!
//! What is bounded: connections, clients that have not named a port among them, by the
//! definition's number; bytes for each by [`HostStream`]; answers to packets about no connection
//! by the caller, which stops taking packets while [`Connections::is_choked`].

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;

use super::super::back::Source;
use super::Dial;
use super::connection::{Connection, Fate, Key};
use super::listener::{Handshake, Listener};
use super::packet::{HOST_CID, Header, Op, STREAM};
use super::stream::HostStream;

/// Answers to packets about no connection that wait for the guest's buffers. With fewer, a guest
/// that connects to many ports without a service is served in small steps; more take memory.
const MOST_RESETS: usize = 256;
/// Ports of the host's ends of connections that the host begins. Those below are for services.
const FIRST_PORT: u32 = 1 << 30;
const LAST_PORT: u32 = (1 << 31) - 1;
/// Numbers of descriptors to wait for, in [`Source`]: the listener, the daemon's answers, and from
/// [`FIRST_NUMBER`] on clients and connections.
pub(super) const LISTENER: u64 = 0;
pub(super) const ANSWERS: u64 = 1;
const FIRST_NUMBER: u64 = 2;

/// All connections, and what they wait for.
pub(super) struct Connections {
    cid: u64,
    most: usize,
    dial: Dial,
    listener: Listener,
    by_number: BTreeMap<u64, Connection>,
    /// The numbers of those that the guest knows, or will.
    numbers: BTreeMap<Key, u64>,
    /// Numbers are never used twice, so none means another connection than it did.
    next_number: u64,
    last_port: u32,
    /// Packets about no connection, which are answered so: their ports and type.
    resets: VecDeque<(Key, u16)>,
    /// Connections with a packet for the guest, each once.
    talkers: VecDeque<u64>,
    /// The connection that gave data last: the others have their turn before it.
    last_served: u64,
}

impl Connections {
    /// For a guest with this context identifier and at most `most` connections.
    pub(super) fn new(cid: u32, most: usize, listener: Option<OwnedFd>, dial: Dial) -> Self {
        Self {
            cid: cid.into(),
            most,
            dial,
            listener: Listener::new(listener),
            by_number: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next_number: FIRST_NUMBER,
            last_port: FIRST_PORT,
            resets: VecDeque::new(),
            talkers: VecDeque::new(),
            last_served: 0,
        }
    }

    /// Ends all connections: the guest knows none any more. Programs that have not named a port
    /// wait for its next driver.
    pub(super) fn clear(&mut self) {
        self.by_number.clear();
        self.numbers.clear();
        self.resets.clear();
        self.talkers.clear();
    }

    /// Whether no packet of the guest may be taken before it has taken some.
    pub(super) fn is_choked(&self) -> bool {
        self.resets.len() >= MOST_RESETS
    }

    /// Takes a packet of the guest, with its data. `data` is `None` where that is missing or longer
    /// than any that the guest has credit for.
    pub(super) fn take(&mut self, header: &Header, data: Option<&[u8]>, now: Instant) {
        // Other addresses lead nowhere, and an answer would have no way back.
        if header.from_cid != self.cid || header.to_cid != HOST_CID {
            return;
        }
        let key = Key { host: header.to_port, guest: header.from_port };
        let op = Op::of(header.op).filter(|_| header.kind == STREAM);
        let number = self.numbers.get(&key).copied().filter(|_| header.kind == STREAM);
        let Some(number) = number else {
            match op {
                Some(Op::Request) => self.request(key, header, now),
                Some(Op::Reset) => {}
                _ => self.resets.push_back((key, header.kind)),
            }
            return;
        };
        let Some(connection) = self.by_number.get_mut(&number) else { return };
        let fate = match (op, data) {
            (Some(op), Some(data)) => connection.take(op, header, data, now),
            _ => Fate::Reset,
        };
        self.decide(number, fate);
    }

    /// The guest wants to connect to the host.
    fn request(&mut self, key: Key, header: &Header, now: Instant) {
        let number = self.next_number;
        if self.room() == 0 || !(self.dial)(number, key.host) {
            self.resets.push_back((key, STREAM));
            return;
        }
        self.next_number += 1;
        self.add(number, Connection::to_host(key, header, now));
    }

    /// The daemon has answered question `number`, with a connected socket or without.
    pub(super) fn dialed(&mut self, number: u64, socket: Option<OwnedFd>) {
        let Some(connection) = self.by_number.get_mut(&number) else { return };
        let stream = socket.and_then(|socket| HostStream::new(socket).ok());
        let fate = connection.dialed(stream);
        self.decide(number, fate);
    }

    /// Accepts programs of the host. Returns why no more will be accepted, if that is so.
    pub(super) fn accept(&mut self, now: Instant) -> Option<Errno> {
        let room = self.room();
        let next = &mut self.next_number;
        self.listener.accept(room, now, || {
            *next += 1;
            *next - 1
        })
    }

    /// What to wait for while there is no driver. Programs of the host wait for one, as long as
    /// they may take to name a port.
    pub(super) fn idle_sources(&self) -> Vec<Source<'_>> {
        self.listener.sources(LISTENER, self.room() > 0, false).collect()
    }

    /// A program that waits for a driver has left.
    pub(super) fn has_left(&mut self, number: u64) {
        self.listener.forget(number);
    }

    /// The socket with this number is ready.
    pub(super) fn ready(&mut self, number: u64, now: Instant) {
        if let Some(connection) = self.by_number.get_mut(&number) {
            let fate = connection.ready(now);
            self.decide(number, fate);
        } else if let Handshake::Port(socket, port) = self.listener.read_from(number) {
            let stream = HostStream::new(socket);
            if let (Ok(stream), Some(key)) = (stream, self.free_key(port)) {
                self.add(number, Connection::to_guest(key, stream, now));
            }
        }
    }

    /// Whether data of the connection with this number may go to the guest.
    pub(super) fn wants_data(&self, number: u64) -> bool {
        self.by_number.get(&number).is_some_and(Connection::wants_data)
    }

    /// Reads data of the connection with this number into `buffer`, which is not empty. Returns
    /// the header of its packet; `None`: there is no data now.
    pub(super) fn read(&mut self, number: u64, buffer: &mut [u8], now: Instant) -> Option<Header> {
        let connection = self.by_number.get_mut(&number)?;
        match connection.read(buffer, now) {
            Ok(header) => {
                self.last_served = number;
                self.decide(number, Fate::Stays);
                Some(self.addressed(header))
            }
            Err(fate) => {
                self.decide(number, fate);
                None
            }
        }
    }

    /// Whether there may be a packet without data for the guest.
    pub(super) fn has_packet(&self) -> bool {
        !self.resets.is_empty() || !self.talkers.is_empty()
    }

    /// The next packet without data for the guest, taken as sent.
    pub(super) fn next_packet(&mut self) -> Option<Header> {
        if let Some((key, kind)) = self.resets.pop_front() {
            let op = Op::Reset.number();
            let reset = Header { from_port: key.host, to_port: key.guest, kind, op, ..Header::default() };
            return Some(self.addressed(reset));
        }
        while let Some(number) = self.talkers.pop_front() {
            let Some(connection) = self.by_number.get_mut(&number) else { continue };
            connection.is_queued = false;
            if let Some(header) = connection.next_packet() {
                self.decide(number, Fate::Stays);
                return Some(self.addressed(header));
            }
        }
        None
    }

    /// What to wait for. `has_buffers`: the guest has some for data.
    pub(super) fn sources(&self, has_buffers: bool) -> Vec<Source<'_>> {
        let after = (Bound::Excluded(self.last_served), Bound::Unbounded);
        let turns = self.by_number.range(after).chain(self.by_number.range(..=self.last_served));
        let streams = turns.filter_map(|(number, connection)| {
            let (stream, flags) = connection.interest(has_buffers)?;
            Some(Source { number: *number, fd: stream.as_fd(), flags })
        });
        self.listener.sources(LISTENER, self.room() > 0, true).chain(streams).collect()
    }

    /// When [`Connections::expire`] is to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.by_number.values().filter_map(Connection::deadline).chain(self.listener.deadline()).min()
    }

    /// Ends what has waited for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        self.listener.expire(now);
        let late = |(number, connection): (&u64, &Connection)| {
            let late = connection.deadline().is_some_and(|until| until <= now);
            late.then(|| (*number, connection.expired()))
        };
        let late: Vec<(u64, Fate)> = self.by_number.iter().filter_map(late).collect();
        late.into_iter().for_each(|(number, fate)| self.decide(number, fate));
    }

    /// Connections that there may still be.
    fn room(&self) -> usize {
        self.most.saturating_sub(self.by_number.len() + self.listener.waiting())
    }

    fn add(&mut self, number: u64, connection: Connection) {
        self.numbers.insert(connection.key, number);
        self.by_number.insert(number, connection);
        self.decide(number, Fate::Stays);
    }

    /// Does to connection `number` what its fate says.
    fn decide(&mut self, number: u64, fate: Fate) {
        let Some(connection) = self.by_number.get_mut(&number) else { return };
        let key = connection.key;
        match fate {
            Fate::Stays => {
                if connection.has_packet() && !std::mem::replace(&mut connection.is_queued, true) {
                    self.talkers.push_back(number);
                }
                return;
            }
            Fate::Drains => {}
            Fate::Reset | Fate::Over => {
                // A guest without buffers would make the queue longer with each connection.
                if connection.is_queued {
                    self.talkers.retain(|talker| *talker != number);
                }
                self.by_number.remove(&number);
            }
        }
        // Those of one that drains may be another's by now.
        if self.numbers.get(&key) == Some(&number) {
            self.numbers.remove(&key);
            if fate == Fate::Reset {
                self.resets.push_back((key, STREAM));
            }
        }
    }

    /// The ports of a new connection to port `guest` of the guest.
    fn free_key(&mut self, guest: u32) -> Option<Key> {
        // There are more ports than connections.
        for _ in 0..=self.most {
            self.last_port = if self.last_port < LAST_PORT { self.last_port + 1 } else { FIRST_PORT };
            let key = Key { host: self.last_port, guest };
            if !self.numbers.contains_key(&key) {
                return Some(key);
            }
        }
        None
    }

    fn addressed(&self, header: Header) -> Header {
        Header { from_cid: HOST_CID, to_cid: self.cid, ..header }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use super::super::testing::{CID, packet};
    use super::*;

    #[test]
    fn connections_that_a_guest_forgets_before_it_takes_a_packet_leave_nothing() {
        let mut connections = Connections::new(CID, 4, None, Arc::new(|_, _| true));
        let now = Instant::now();
        for guest in 0..1000 {
            connections.take(&packet(Op::Request, guest, 5), Some(&[]), now);
            let (socket, _program) = UnixStream::pair().unwrap();
            connections.dialed(connections.next_number - 1, Some(socket.into()));
            assert!(connections.has_packet());
            connections.take(&packet(Op::Reset, guest, 5), Some(&[]), now);
        }
        assert!(connections.by_number.is_empty() && connections.numbers.is_empty());
        assert!(connections.talkers.is_empty() && !connections.has_packet());
    }
}
