//! The back half of the network interface: packets between the tap device and the queues.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use plimsoll_pmap::GuestRam;
use plimsoll_protocol::definition::MacAddress;
use rustix::event::PollFlags;
use rustix::io::Errno;

use super::super::back::{Back, Broken, DeviceEvent, Progress, Source};
use super::super::interrupt::Interrupt;
use super::super::ring::{Chain, Ring};
use super::super::{Activation, NoticeSink};
use super::gate::{Gate, Verdict};
use super::handle::Shared;
use super::pace::Pace;
use super::{HEADER, Link, MAX_PACKET, RECEIVE, TRANSMIT, bit, tap};

/// Most packets received before the other queue is served. More would let one direction starve the
/// other.
const RECEIVE_BUDGET: usize = 64;
/// Where in the header the number of merged buffers is.
const NUM_BUFFERS: std::ops::Range<usize> = 10..12;

pub(super) struct NetBack {
    name: String,
    link: Link,
    memory: GuestRam,
    notices: NoticeSink,
    shared: Arc<Shared>,
    gate: Gate,
    incoming: Pace,
    outgoing: Pace,
    /// A notice about the link was given: a guest that resets the device again and again causes no
    /// other.
    told: bool,
    buffer: Box<[u8]>,
    receive: Option<Receive>,
    transmit: Option<Ring>,
    interrupt: Option<Interrupt>,
    /// Configuration space has changed while no driver could be told.
    has_news: bool,
}

/// The receiving side.
struct Receive {
    ring: Ring,
    /// Buffers taken from the queue and not yet filled.
    held: Vec<Chain>,
    mergeable: bool,
    /// A packet for which there was no room, as it was read.
    pending: Option<Box<[u8]>>,
    /// The link has ended: its descriptor would be readable for ever.
    dead: bool,
}

/// What became of a packet.
enum Delivery {
    Done,
    /// The driver has to provide more buffers first.
    NoRoom,
}

impl NetBack {
    pub(super) fn new(
        name: &str,
        link: Link,
        mac: MacAddress,
        memory: GuestRam,
        shared: Arc<Shared>,
        notices: NoticeSink,
    ) -> Self {
        let mut back = Self {
            name: name.to_owned(),
            link,
            memory,
            notices,
            shared,
            gate: Gate::new(mac),
            incoming: Pace::incoming(),
            outgoing: Pace::default(),
            told: false,
            buffer: vec![0; MAX_PACKET].into_boxed_slice(),
            receive: None,
            transmit: None,
            interrupt: None,
            has_news: false,
        };
        back.refresh();
        // That was no change.
        back.has_news = false;
        back
    }

    fn receive(&mut self) -> Result<Progress, Broken> {
        let (Some(receive), Some(interrupt)) = (&mut self.receive, &self.interrupt) else {
            return Ok(Progress::Done);
        };
        if let Some(mut packet) = receive.pending.take()
            && let Delivery::NoRoom = receive.deliver(&self.memory, &mut packet)?
        {
            receive.pending = Some(packet);
            return Ok(Progress::Done);
        }
        let mut progress = Progress::More;
        let mut gone_why = None;
        for _ in 0..RECEIVE_BUDGET {
            // Without a cable packets need no place, and do not wait in the tap until there is one.
            if self.gate.is_up() && !self.incoming.may_pass() {
                progress = Progress::Done;
                break;
            }
            match rustix::io::read(&self.link.fd, &mut self.buffer[..]) {
                Ok(length @ 1..HEADER) => {
                    tracing::debug!(length, "a packet shorter than its header");
                }
                Ok(HEADER..) if !self.gate.is_up() => {}
                Ok(length @ HEADER..) => {
                    let packet = &mut self.buffer[..length];
                    self.incoming.passes(packet);
                    if let Delivery::NoRoom = receive.deliver(&self.memory, packet)? {
                        receive.pending = Some(packet.into());
                        progress = Progress::Done;
                        break;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    progress = Progress::Done;
                    break;
                }
                gone @ (Ok(0) | Err(_)) => {
                    let why = gone.map_or_else(|error| error.to_string(), |_| "closed".to_owned());
                    gone_why = Some(why);
                    receive.dead = true;
                    progress = Progress::Done;
                    break;
                }
            }
        }
        receive.ring.notify(&*self.memory, interrupt)?;
        if let Some(why) = gone_why {
            self.tell(&format!("nothing can be received any more ({why})"));
        }
        Ok(progress)
    }

    fn transmit(&mut self) -> Result<Progress, Broken> {
        let (Some(ring), Some(interrupt)) = (&mut self.transmit, &self.interrupt) else {
            return Ok(Progress::Done);
        };
        let (memory, link, buffer) = (&self.memory, &self.link, &mut self.buffer);
        for _ in 0..ring.size() {
            if self.gate.is_up() && !self.outgoing.may_pass() {
                break;
            }
            let Some(chain) = ring.pop(&**memory)? else { break };
            let length = chain.readable.read(&**memory, buffer)?;
            let whole = usize::try_from(chain.readable.len()).is_ok_and(|total| total == length);
            if whole && length >= HEADER {
                match self.gate.judge(&buffer[HEADER..length]) {
                    // A packet that the link does not take (it is full or down, or the packet is
                    // invalid) is lost, as on a wire.
                    Verdict::Pass => {
                        rustix::io::write(&link.fd, &buffer[..length]).ok();
                    }
                    Verdict::Lost => {}
                    Verdict::Filtered => self.shared.count_filtered(),
                }
            }
            // Also what does not leave: guests that send nonsense are held to their rate. What is
            // lost without a cable waits for nothing, and is not made up for later.
            if self.gate.is_up() {
                self.outgoing.passes(&buffer[..length]);
            }
            ring.push(&**memory, &[(chain.head, 0)])?;
        }
        ring.notify(&**memory, interrupt)?;
        // Decided once: were the queue neither armed nor due, it would never be served again.
        let may_pass = !self.gate.is_up() || self.outgoing.may_pass();
        let more = may_pass && ring.rearm(&**memory)?;
        Ok(if more { Progress::More } else { Progress::Done })
    }

    fn set_offloads(&mut self, features: u64) {
        if self.link.is_tap
            && let Err(error) = tap::set_offloads(&self.link.fd, features)
        {
            self.tell(&format!("the tap device refuses offloads ({error}); packets come in small pieces"));
        }
    }

    fn tell(&mut self, what: &str) {
        if !std::mem::replace(&mut self.told, true) {
            (self.notices)(format!("device {}: {what}", self.name));
        }
    }
}

impl Receive {
    /// Writes `packet` to the driver's buffers.
    fn deliver(&mut self, memory: &GuestRam, packet: &mut [u8]) -> Result<Delivery, Broken> {
        if !self.gather(memory, packet.len())? {
            return Ok(Delivery::NoRoom);
        }
        let room = |chain: &Chain| usize::try_from(chain.writable.len()).unwrap_or(usize::MAX);
        if !self.mergeable && self.held.first().is_none_or(|first| room(first) < packet.len()) {
            // A driver whose single buffer is too short loses the packet.
            return Ok(Delivery::Done);
        }
        let mut used = vec![];
        let buffers = count_needed(self.held.iter().map(room), packet.len());
        packet[NUM_BUFFERS]
            .copy_from_slice(&u16::try_from(buffers).map_err(|_| Broken::Layout)?.to_le_bytes());
        let mut rest = &*packet;
        for chain in self.held.drain(..buffers) {
            let written = chain.writable.write(&**memory, &rest[..rest.len().min(room(&chain))])?;
            used.push((chain.head, u32::try_from(written).map_err(|_| Broken::Layout)?));
            rest = &rest[written..];
        }
        self.ring.push(&**memory, &used)?;
        Ok(Delivery::Done)
    }

    /// Takes buffers from the queue until they have room for `length` bytes. Returns false if the
    /// driver has to provide more.
    fn gather(&mut self, memory: &GuestRam, length: usize) -> Result<bool, Broken> {
        loop {
            let room: u64 = self.held.iter().map(|chain| u64::from(chain.writable.len())).sum();
            if room >= length as u64 || (!self.mergeable && !self.held.is_empty()) {
                return Ok(true);
            }
            match self.ring.pop(&**memory)? {
                // Without room no buffer brings an end of this nearer.
                Some(chain) if chain.writable.len() == 0 => return Err(Broken::Layout),
                // More than the queue holds were given twice.
                Some(_) if self.held.len() >= usize::from(self.ring.size()) => {
                    return Err(Broken::AvailableIndex);
                }
                Some(chain) => self.held.push(chain),
                None if self.ring.rearm(&**memory)? => {}
                None => return Ok(false),
            }
        }
    }
}

/// The number of buffers that take `length` bytes, where `room` is the room of each buffer.
fn count_needed(room: impl Iterator<Item = usize>, length: usize) -> usize {
    let mut left = length;
    let mut count = 0;
    for room in room {
        if left == 0 {
            break;
        }
        left = left.saturating_sub(room);
        count += 1;
    }
    count
}

impl Back for NetBack {
    fn start(&mut self, mut activation: Activation) -> Result<(), Broken> {
        if let Some(queue) = activation.queues[RECEIVE].take() {
            let ring = Ring::new(RECEIVE, queue, &*self.memory)?;
            let mergeable = activation.features & bit::MRG_RXBUF != 0;
            self.receive = Some(Receive { ring, held: vec![], mergeable, pending: None, dead: false });
        }
        if let Some(queue) = activation.queues[TRANSMIT].take() {
            self.transmit = Some(Ring::new(TRANSMIT, queue, &*self.memory)?);
        }
        if std::mem::take(&mut self.has_news) {
            // The driver may have read what it was before.
            activation.interrupt.config_change();
        }
        self.interrupt = Some(activation.interrupt);
        self.set_offloads(activation.features);
        Ok(())
    }

    fn serve(&mut self, event: DeviceEvent) -> Result<Progress, Broken> {
        match event {
            DeviceEvent::Kick(TRANSMIT) => self.transmit(),
            DeviceEvent::Deadline => {
                let progress = [self.transmit()?, self.receive()?];
                Ok(if progress.contains(&Progress::More) { Progress::More } else { Progress::Done })
            }
            _ => self.receive(),
        }
    }

    fn stop(&mut self) {
        let was_active = self.interrupt.take().is_some();
        self.receive = None;
        self.transmit = None;
        self.incoming.rest();
        self.outgoing.rest();
        if was_active {
            self.set_offloads(0);
        }
    }

    fn refresh(&mut self) -> bool {
        let Some(settings) = self.shared.take_settings() else { return false };
        self.incoming.change(settings.rate);
        self.outgoing.change(settings.rate);
        self.gate.change(&settings);
        if !self.gate.is_up()
            && let Some(receive) = &mut self.receive
        {
            receive.pending = None;
        }
        if self.shared.show(self.gate.is_up()) {
            match &self.interrupt {
                Some(interrupt) => interrupt.config_change(),
                None => self.has_news = true,
            }
        }
        true
    }

    fn deadline(&self) -> Option<Instant> {
        self.incoming.due().into_iter().chain(self.outgoing.due()).min()
    }

    fn sources(&self) -> Vec<Source<'_>> {
        let ready = |receive: &Receive| receive.pending.is_none() && !receive.dead;
        let wanted = self.receive.as_ref().is_some_and(ready) && self.incoming.due().is_none();
        let link = Source { number: 0, fd: self.link.fd.as_fd(), flags: PollFlags::IN };
        wanted.then_some(link).into_iter().collect()
    }
}
