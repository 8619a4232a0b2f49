//! The back half of the vsock device: packets between the queues and the connections.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::Receiver;
use std::time::Instant;

use plimsoll_pmap::GuestRam;
use plimsoll_protocol::definition::CONNECTION_BUFFER;
use plimsoll_sys::Event;
use rustix::event::PollFlags;

use super::super::back::{Back, Broken, DeviceEvent, Progress, Source};
use super::super::interrupt::Interrupt;
use super::super::ring::{Chain, Ring};
use super::super::{Activation, NoticeSink};
use super::connections::{ANSWERS, Connections, LISTENER};
use super::packet::{HEADER, Header};
use super::{RECEIVE, TRANSMIT};

/// Most data in a packet to the guest. Linux has buffers of 4 KiB, and of 64 KiB at most.
const MAX_DATA: usize = 64 << 10;
/// Packets of one connection before the next has its turn.
const TURN: usize = 8;

/// A connected socket for the guest's request of this number; `None`: the host does not take it.
pub(super) type Answer = (u64, Option<OwnedFd>);

pub(super) struct VsockBack {
    name: String,
    memory: GuestRam,
    notices: NoticeSink,
    connections: Connections,
    answers: Receiver<Answer>,
    bell: Event,
    /// A packet on its way. The guest cannot change what was read into it.
    packet: Box<[u8]>,
    active: Option<Active>,
}

/// What a driver has set up.
struct Active {
    receive: Option<Receive>,
    transmit: Option<Ring>,
    interrupt: Interrupt,
    /// The driver's packets may be waiting in its queue.
    unread: bool,
}

/// The queue of packets to the guest.
struct Receive {
    ring: Ring,
    /// A buffer that was taken from the queue, and for which there was no packet.
    held: Option<Chain>,
    /// The driver has to provide more buffers first.
    dry: bool,
}

impl VsockBack {
    pub(super) fn new(
        name: &str,
        connections: Connections,
        answers: Receiver<Answer>,
        bell: Event,
        memory: GuestRam,
        notices: NoticeSink,
    ) -> Self {
        let packet = vec![0; HEADER + MAX_DATA].into_boxed_slice();
        Self { name: name.to_owned(), memory, notices, connections, answers, bell, packet, active: None }
    }

    /// Serves `event` on the queues of `active`.
    fn serve_queues(&mut self, active: &mut Active, event: DeviceEvent) -> Result<Progress, Broken> {
        let now = Instant::now();
        match event {
            DeviceEvent::Kick(TRANSMIT) => active.unread = true,
            DeviceEvent::Kick(RECEIVE) => {
                if let Some(receive) = &mut active.receive {
                    receive.dry = false;
                }
            }
            // The queue of events: there is only one kind, which tells that the guest has moved to
            // another host.
            DeviceEvent::Kick(_) => {}
            DeviceEvent::Source(LISTENER) => self.accept(now),
            DeviceEvent::Source(ANSWERS) => {
                self.bell.clear();
                while let Ok((number, socket)) = self.answers.try_recv() {
                    self.connections.dialed(number, socket);
                }
            }
            DeviceEvent::Source(number) => {
                self.connections.ready(number, now);
                if let Some(receive) = &mut active.receive {
                    self.send_data(receive, number, now)?;
                }
            }
            DeviceEvent::Deadline => self.connections.expire(now),
        }
        self.send_packets(active.receive.as_mut())?;
        if active.unread && !self.connections.is_choked() {
            active.unread = self.transmit(active, now)?;
            self.send_packets(active.receive.as_mut())?;
        }
        if let Some(receive) = &mut active.receive {
            receive.ring.notify(&*self.memory, &active.interrupt)?;
        }
        // A choked device goes on when the guest has provided buffers.
        Ok(if active.unread && !self.connections.is_choked() { Progress::More } else { Progress::Done })
    }

    fn accept(&mut self, now: Instant) {
        if let Some(error) = self.connections.accept(now) {
            let name = &self.name;
            (self.notices)(format!("device {name}: no program can reach the guest any more ({error})"));
        }
    }

    /// Takes packets of the guest. Returns whether more may be waiting.
    fn transmit(&mut self, active: &mut Active, now: Instant) -> Result<bool, Broken> {
        let Some(ring) = &mut active.transmit else { return Ok(false) };
        let mut choked = false;
        for _ in 0..ring.size() {
            choked = self.connections.is_choked();
            if choked {
                break;
            }
            let Some(chain) = ring.pop(&*self.memory)? else { break };
            // What is longer than a guest may send is not read.
            let most = HEADER + CONNECTION_BUFFER as usize;
            let length = chain.readable.read(&*self.memory, &mut self.packet[..most])?;
            if let Some((header, data)) = self.packet[..length].split_first_chunk::<HEADER>() {
                let header = Header::read(header);
                // Without an operation that has data there is none to look at.
                let data = usize::try_from(header.length).ok().and_then(|length| data.get(..length));
                self.connections.take(&header, data, now);
            }
            ring.push(&*self.memory, &[(chain.head, 0)])?;
        }
        ring.notify(&*self.memory, &active.interrupt)?;
        Ok(choked || ring.rearm(&*self.memory)?)
    }

    /// Sends packets without data to the guest, as far as it has buffers.
    fn send_packets(&mut self, receive: Option<&mut Receive>) -> Result<(), Broken> {
        let Some(receive) = receive else { return Ok(()) };
        while self.connections.has_packet()
            && let Some(chain) = receive.buffer(&self.memory)?
        {
            match self.connections.next_packet() {
                Some(header) => receive.fill(&self.memory, &chain, &header.bytes())?,
                None => receive.held = Some(chain),
            }
        }
        Ok(())
    }

    /// Sends data of connection `number` to the guest, as far as it has buffers.
    fn send_data(&mut self, receive: &mut Receive, number: u64, now: Instant) -> Result<(), Broken> {
        for _ in 0..TURN {
            if !self.connections.wants_data(number) {
                break;
            }
            let Some(chain) = receive.buffer(&self.memory)? else { break };
            let room = usize::try_from(chain.writable.len()).map_err(|_| Broken::Layout)?;
            let room = room.min(self.packet.len());
            let Some(header) = self.connections.read(number, &mut self.packet[HEADER..room], now) else {
                receive.held = Some(chain);
                break;
            };
            let length = HEADER + usize::try_from(header.length).map_err(|_| Broken::Layout)?;
            self.packet[..HEADER].copy_from_slice(&header.bytes());
            receive.fill(&self.memory, &chain, &self.packet[..length])?;
        }
        Ok(())
    }
}

impl Receive {
    fn new(ring: Ring) -> Self {
        Self { ring, held: None, dry: false }
    }

    /// The next buffer, with room for a header and a byte at least; `None`: the driver has to
    /// provide more.
    fn buffer(&mut self, memory: &GuestRam) -> Result<Option<Chain>, Broken> {
        if let Some(chain) = self.held.take() {
            return Ok(Some(chain));
        }
        loop {
            match self.ring.pop(&**memory)? {
                Some(chain) if u64::from(chain.writable.len()) <= HEADER as u64 => {
                    return Err(Broken::Layout);
                }
                Some(chain) => return Ok(Some(chain)),
                None if self.ring.rearm(&**memory)? => {}
                None => {
                    self.dry = true;
                    return Ok(None);
                }
            }
        }
    }

    /// Gives a buffer back with `packet` in it, for which it has room.
    fn fill(&mut self, memory: &GuestRam, chain: &Chain, packet: &[u8]) -> Result<(), Broken> {
        let written = chain.writable.write(&**memory, packet)?;
        self.ring.push(&**memory, &[(chain.head, u32::try_from(written).map_err(|_| Broken::Layout)?)])
    }
}

impl Back for VsockBack {
    fn start(&mut self, mut activation: Activation) -> Result<(), Broken> {
        let mut ring = |number: usize| {
            let queue = activation.queues[number].take();
            queue.map(|queue| Ring::new(number, queue, &*self.memory)).transpose()
        };
        let (receive, transmit) = (ring(RECEIVE)?.map(Receive::new), ring(TRANSMIT)?);
        self.active = Some(Active { receive, transmit, interrupt: activation.interrupt, unread: true });
        Ok(())
    }

    fn serve(&mut self, event: DeviceEvent) -> Result<Progress, Broken> {
        let Some(mut active) = self.active.take() else { return Ok(Progress::Done) };
        let result = self.serve_queues(&mut active, event);
        self.active = Some(active);
        result
    }

    fn stop(&mut self) {
        self.active = None;
        self.connections.clear();
        self.bell.clear();
        // Answers that come later are about connections that are gone.
        while self.answers.try_recv().is_ok() {}
    }

    fn sources(&self) -> Vec<Source<'_>> {
        let receive = self.active.as_ref().and_then(|active| active.receive.as_ref());
        let mut sources = self.connections.sources(receive.is_some_and(|receive| !receive.dry));
        sources.push(Source { number: ANSWERS, fd: self.bell.as_fd(), flags: PollFlags::IN });
        sources
    }

    fn deadline(&self) -> Option<Instant> {
        self.connections.deadline()
    }

    fn idle_sources(&self) -> Vec<Source<'_>> {
        self.connections.idle_sources()
    }

    fn idle_deadline(&self) -> Option<Instant> {
        self.connections.deadline()
    }

    fn serve_idle(&mut self, event: DeviceEvent) {
        let now = Instant::now();
        match event {
            DeviceEvent::Source(LISTENER) => self.accept(now),
            DeviceEvent::Source(number) => self.connections.has_left(number),
            DeviceEvent::Kick(_) | DeviceEvent::Deadline => self.connections.expire(now),
        }
    }
}
