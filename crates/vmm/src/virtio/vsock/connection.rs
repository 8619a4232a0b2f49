//! One connection between a port of the host and a port of the guest.
//!
//! | stage | is | ends when |
//! |---|---|---|
//! | asked | a program of the host wants to reach the guest | the guest answers, or takes too long |
//! | dialing | the guest wants to reach the host | the daemon answers, or takes too long |
//! | open | data goes both ways, until each side has ended its direction | both have |
//! | closing | nothing flows any more, and the guest was told | the guest agrees, or takes too long |
//! | draining | the guest is gone; what it sent is on its way | the host's end has read it, or is gone |

use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::credit::{Credit, Overdrawn};
use super::packet::{Header, Op, end};
use super::stream::{Gone, HostStream, Received};

/// How long the guest may take to answer a request, and the daemon to connect. Linux waits for 2 s
/// when it asks.
const ANSWER: Duration = Duration::from_secs(5);
/// How long the guest may take to agree to an end. Linux takes 8 s.
const AGREEMENT: Duration = Duration::from_secs(10);

/// Which connection: its two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) host: u32,
    pub(super) guest: u32,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Stays,
    /// The guest is told that it does not exist, and it is forgotten.
    Reset,
    /// It is forgotten.
    Over,
    /// The guest forgets it, and its ports are free.
    Drains,
}

#[derive(Debug)]
enum Stage {
    Asked { stream: HostStream, sent: bool, until: Instant },
    Dialing { until: Instant },
    Open { stream: HostStream, answered: bool },
    Closing { until: Instant },
    Draining { stream: HostStream },
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) key: Key,
    stage: Stage,
    credit: Credit,
    /// The guest wants to know its credit.
    asked_for_credit: bool,
    /// The guest has no room, and is to be asked once to tell when it has.
    asks_for_credit: bool,
    /// What the guest has ended, what the host has, and what the guest was told of that: flags of
    /// [`end`].
    guest_ended: u32,
    host_ended: u32,
    told_ended: u32,
    /// It waits in the queue of connections with something for the guest.
    pub(super) is_queued: bool,
}

impl Connection {
    fn new(key: Key, stage: Stage) -> Self {
        Self {
            key,
            stage,
            credit: Credit::default(),
            asked_for_credit: false,
            asks_for_credit: false,
            guest_ended: 0,
            host_ended: 0,
            told_ended: 0,
            is_queued: false,
        }
    }

    /// A program of the host, at the other end of `stream`, wants to reach the guest.
    pub(super) fn to_guest(key: Key, stream: HostStream, now: Instant) -> Self {
        Self::new(key, Stage::Asked { stream, sent: false, until: now + ANSWER })
    }

    /// The guest wants to reach the host, by the packet `request`.
    pub(super) fn to_host(key: Key, request: &Header, now: Instant) -> Self {
        let mut connection = Self::new(key, Stage::Dialing { until: now + ANSWER });
        // Nothing was sent, so any count of it but zero is wrong; the next packet tells.
        connection.credit.observe(request.buffer, 0).ok();
        connection
    }

    /// The daemon has connected to the host's port, or could not.
    pub(super) fn dialed(&mut self, stream: Option<HostStream>) -> Fate {
        if !matches!(self.stage, Stage::Dialing { .. }) {
            // A second answer.
            return Fate::Stays;
        }
        let Some(stream) = stream else { return Fate::Reset };
        self.stage = Stage::Open { stream, answered: false };
        Fate::Stays
    }

    /// Takes a packet of the guest, with its data.
    pub(super) fn take(&mut self, op: Op, header: &Header, data: &[u8], now: Instant) -> Fate {
        // Not all guests tell their credit in it.
        if op == Op::Reset {
            return self.forgotten_by_guest();
        }
        if self.credit.observe(header.buffer, header.taken).is_err() {
            return Fate::Reset;
        }
        match op {
            // There is one with these ports.
            Op::Request => return Fate::Reset,
            Op::Response => return self.answered(),
            Op::Shutdown => {
                if !matches!(self.stage, Stage::Open { .. } | Stage::Closing { .. }) {
                    return Fate::Reset;
                }
                self.guest_ended |= header.flags & end::BOTH;
                if let Stage::Open { stream, .. } = &self.stage
                    && self.guest_ended & end::RECEIVE != 0
                {
                    stream.end_reading();
                }
            }
            Op::Data => {
                if self.receive(data).is_err() {
                    return Fate::Reset;
                }
            }
            Op::Reset | Op::CreditUpdate => {}
            Op::CreditRequest => self.asked_for_credit = true,
        }
        self.settle(now)
    }

    /// The socket is ready, or time has passed: sends what is kept, and looks whether the other end
    /// has left. Data is read by [`Connection::read`].
    pub(super) fn ready(&mut self, now: Instant) -> Fate {
        match &mut self.stage {
            Stage::Asked { stream, sent, .. } if stream.is_closed() => {
                return if *sent { Fate::Reset } else { Fate::Over };
            }
            Stage::Draining { stream } => {
                return match stream.flush() {
                    Ok(_) if stream.is_behind() => Fate::Stays,
                    _ => Fate::Over,
                };
            }
            Stage::Open { stream, .. } => match stream.flush() {
                Ok(sent) => self.credit.pass(count(sent)),
                Err(Gone) => {
                    self.host_ended |= end::RECEIVE;
                    self.credit.pass_all();
                }
            },
            _ => {}
        }
        self.settle(now)
    }

    /// Whether data of the host may go to the guest now.
    pub(super) fn wants_data(&self) -> bool {
        self.may_read() && self.credit.room() > 0
    }

    /// Reads data of the host into `buffer`, as much as the guest has room for, and returns the
    /// header of its packet. `Err`: nothing to send, and what becomes of the connection.
    pub(super) fn read(&mut self, buffer: &mut [u8], now: Instant) -> Result<Header, Fate> {
        let room = buffer.len().min(self.credit.room() as usize);
        let stream = match &self.stage {
            Stage::Open { stream, .. } if self.may_read() && room > 0 => stream,
            _ => return Err(Fate::Stays),
        };
        match stream.receive(&mut buffer[..room]) {
            Received::Bytes(bytes) => {
                let length = count(bytes);
                self.credit.send(length);
                self.asks_for_credit = self.credit.room() == 0;
                Ok(Header { length, ..self.header(Op::Data, 0) })
            }
            Received::Nothing => Err(Fate::Stays),
            Received::End => {
                self.host_ended |= end::SEND;
                // Both directions at once, where the other end is closed: else the guest would be
                // told of one, and learn of the other when it writes.
                if stream.is_closed() && !stream.is_behind() {
                    self.host_ended |= end::RECEIVE;
                }
                Err(self.settle(now))
            }
        }
    }

    /// Whether [`Connection::next_packet`] has a packet.
    pub(super) fn has_packet(&self) -> bool {
        self.next_op().is_some()
    }

    /// The header of the next packet without data that the guest is to get, which is taken as sent.
    pub(super) fn next_packet(&mut self) -> Option<Header> {
        let op = self.next_op()?;
        let mut flags = 0;
        match (op, &mut self.stage) {
            (Op::Request, Stage::Asked { sent, .. }) => *sent = true,
            (Op::Response, Stage::Open { answered, .. }) => *answered = true,
            (Op::Shutdown, _) => {
                flags = self.host_ended;
                self.told_ended = flags;
            }
            (Op::CreditRequest, _) => self.asks_for_credit = false,
            _ => self.asked_for_credit = false,
        }
        Some(self.header(op, flags))
    }

    fn next_op(&self) -> Option<Op> {
        match &self.stage {
            Stage::Asked { sent, .. } => return (!sent).then_some(Op::Request),
            Stage::Open { answered: false, .. } => return Some(Op::Response),
            Stage::Dialing { .. } | Stage::Draining { .. } => return None,
            Stage::Open { .. } | Stage::Closing { .. } => {}
        }
        if self.host_ended != self.told_ended {
            return Some(Op::Shutdown);
        }
        if matches!(self.stage, Stage::Closing { .. }) {
            return None;
        }
        if self.asked_for_credit || self.credit.owes_update() {
            return Some(Op::CreditUpdate);
        }
        (self.asks_for_credit && self.credit.room() == 0).then_some(Op::CreditRequest)
    }

    /// What to wait for at its socket; `None`: nothing. `has_buffers`: the guest has some for data.
    pub(super) fn interest(&self, has_buffers: bool) -> Option<(&HostStream, PollFlags)> {
        match &self.stage {
            // A descriptor is always ready when its other end is gone.
            Stage::Asked { stream, .. } => Some((stream, PollFlags::empty())),
            Stage::Draining { stream } => Some((stream, PollFlags::OUT)),
            Stage::Dialing { .. } | Stage::Closing { .. } => None,
            Stage::Open { stream, .. } => {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, has_buffers && self.wants_data());
                flags.set(PollFlags::OUT, stream.is_behind());
                // While there is something to read and no room for it, an end that is gone would
                // be ready for ever.
                (!flags.is_empty() || self.reading_is_over()).then_some((stream, flags))
            }
        }
    }

    /// When [`Connection::expired`] is to be asked.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Asked { until, .. } | Stage::Dialing { until } | Stage::Closing { until } => Some(until),
            Stage::Open { .. } | Stage::Draining { .. } => None,
        }
    }

    /// What becomes of it at its deadline.
    pub(super) fn expired(&self) -> Fate {
        match self.stage {
            Stage::Asked { sent: false, .. } => Fate::Over,
            _ => Fate::Reset,
        }
    }

    /// The guest has accepted.
    fn answered(&mut self) -> Fate {
        if !matches!(self.stage, Stage::Asked { sent: true, .. }) {
            return Fate::Reset;
        }
        let stage = std::mem::replace(&mut self.stage, Stage::Dialing { until: Instant::now() });
        let Stage::Asked { mut stream, .. } = stage else { return Fate::Reset };
        // Nothing was sent before, so the socket takes it whole.
        if stream.send(format!("OK {}\n", self.key.host).as_bytes()).is_err() || stream.is_behind() {
            return Fate::Reset;
        }
        self.stage = Stage::Open { stream, answered: true };
        Fate::Stays
    }

    /// The guest has sent data.
    fn receive(&mut self, data: &[u8]) -> Result<(), Overdrawn> {
        if self.guest_ended & end::SEND != 0 {
            return Err(Overdrawn);
        }
        let stream = match &mut self.stage {
            Stage::Open { stream, answered: true } => stream,
            // It was under way when the guest was told of the end.
            Stage::Closing { .. } => return Ok(()),
            _ => return Err(Overdrawn),
        };
        self.credit.receive(count(data.len()))?;
        if self.host_ended & end::RECEIVE != 0 {
            // As above.
            self.credit.pass(count(data.len()));
            return Ok(());
        }
        match stream.send(data) {
            Ok(sent) => self.credit.pass(count(sent)),
            Err(Gone) => {
                self.host_ended |= end::RECEIVE;
                self.credit.pass(count(data.len()));
            }
        }
        Ok(())
    }

    /// The guest says that there is no such connection, or not any more.
    fn forgotten_by_guest(&mut self) -> Fate {
        let stage = std::mem::replace(&mut self.stage, Stage::Closing { until: Instant::now() });
        match stage {
            // It had ended in order, and has waited for long enough.
            Stage::Open { stream, .. } if self.guest_ended & end::SEND != 0 && stream.is_behind() => {
                self.stage = Stage::Draining { stream };
                Fate::Drains
            }
            _ => Fate::Over,
        }
    }

    /// Draws the consequences of what has ended.
    fn settle(&mut self, now: Instant) -> Fate {
        if let Stage::Open { stream, .. } = &mut self.stage {
            if self.guest_ended & end::SEND != 0 && !stream.is_behind() {
                stream.end_writing();
            }
            let (written, behind) = (stream.has_ended_writing(), stream.is_behind());
            let closed = written || (self.reading_is_over() && !behind && self.is_closed());
            if closed && self.reading_is_over() {
                self.host_ended = end::BOTH;
            }
            if self.guest_ended == end::BOTH && !behind {
                return Fate::Reset;
            }
            if self.host_ended == end::BOTH {
                self.stage = Stage::Closing { until: now + AGREEMENT };
            }
        }
        match self.stage {
            Stage::Closing { .. } if self.guest_ended == end::BOTH => Fate::Reset,
            _ => Fate::Stays,
        }
    }

    fn is_closed(&self) -> bool {
        matches!(&self.stage, Stage::Open { stream, .. } if stream.is_closed())
    }

    /// Whether the host's data may be read, as far as its end and the guest have not ended that.
    fn may_read(&self) -> bool {
        matches!(self.stage, Stage::Open { answered: true, .. }) && !self.reading_is_over()
    }

    /// Whether no more data goes to the guest.
    fn reading_is_over(&self) -> bool {
        self.guest_ended & end::RECEIVE != 0 || self.host_ended & end::SEND != 0
    }

    fn header(&mut self, op: Op, flags: u32) -> Header {
        let (buffer, taken) = self.credit.tell();
        Header {
            from_port: self.key.host,
            to_port: self.key.guest,
            kind: super::packet::STREAM,
            op: op.number(),
            flags,
            buffer,
            taken,
            ..Header::default()
        }
    }
}

/// A number of bytes of one packet.
fn count(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("packets and buffers are far shorter than 4 GiB")
}
