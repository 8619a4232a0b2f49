//! The back half of the disk: requests on their way between the queue and the engine.

use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use plimsoll_pmap::{GuestRam, IoGuard, PinRequest, Pmap};
use rustix::event::PollFlags;

use super::super::Activation;
use super::super::back::{Back, Broken, DeviceEvent, Progress, Source};
use super::super::interrupt::Interrupt;
use super::super::notices::Notices;
use super::super::rate::Rate;
use super::super::ring::{Ring, Spans};
use super::direction::Direction;
use super::engine::Engine;
use super::growth::grow;
use super::handle::Shared;
use super::judge::Judge;
use super::pinner::Pinner;
use super::request::{Action, Bounds, Request, Status};
use super::task::{Ended, Task};
use super::transfer::Transfer;
use super::work::{Begun, Planned, Work};
use super::{ID_LENGTH, QUEUE_SIZE, bit};

/// What a back half is made of.
pub(super) struct Parts<'a> {
    /// A raw disk's file; `None`: the disk is an image.
    pub(super) file: Option<Arc<File>>,
    pub(super) bounds: Bounds,
    /// What the guest sees as its serial number.
    pub(super) id: &'a str,
    pub(super) shared: Arc<Shared>,
    pub(super) memory: Arc<Pmap>,
    pub(super) engine: Engine,
    pub(super) pinner: Pinner,
    /// Told of failures of the disk.
    pub(super) notices: Notices,
}

pub(super) struct BlockBack {
    /// A raw disk's file; `None`: the disk is an image.
    file: Option<Arc<File>>,
    bounds: Bounds,
    id: [u8; ID_LENGTH],
    judge: Judge,
    /// The driver knows no flush: what is written is durable before it is answered (VIRTIO 1.2,
    /// section 5.2.6.2).
    writes_through: bool,
    /// Configuration space has changed while no driver could be told.
    has_news: bool,
    /// How fast it may be; `None`: as fast as it can, and no clock is read for it.
    rate: Option<Rate>,
    shared: Arc<Shared>,
    /// When the rate lets the next request begin, if the queue waits for nothing else.
    due: Option<Instant>,
    memory: Arc<Pmap>,
    ram: GuestRam,
    engine: Engine,
    pinner: Pinner,
    /// Requests that have begun, by their tag, which is also the tag of their task in the engine.
    requests: Vec<Option<Begun>>,
    free_tags: Vec<u16>,
    /// The part of a request that has to be pinned next.
    to_pin: Option<(u16, PinRequest)>,
    /// A request is done in parts, and has some left; or it takes the bounce buffer.
    exclusive: bool,
    /// A part that went through the bounce buffer, and counts as in flight until its end is taken.
    bounced: Option<Ended>,
    /// Tasks that the engine has.
    in_flight: usize,
    active: Option<(Ring, Interrupt)>,
}

impl BlockBack {
    pub(super) fn new(parts: Parts<'_>) -> Self {
        let Parts { file, bounds, id, shared, memory, engine, pinner, notices } = parts;
        let mut padded = [0; ID_LENGTH];
        padded.iter_mut().zip(id.bytes()).for_each(|(to, from)| *to = from);
        let mut back = Self {
            judge: Judge::new(file.clone(), bounds.geometry, notices),
            file,
            bounds,
            id: padded,
            writes_through: false,
            has_news: false,
            rate: None,
            shared,
            due: None,
            ram: memory.ram().clone(),
            memory,
            engine,
            pinner,
            requests: (0..QUEUE_SIZE).map(|_| None).collect(),
            free_tags: (0..QUEUE_SIZE).collect(),
            to_pin: None,
            exclusive: false,
            bounced: None,
            in_flight: 0,
            active: None,
        };
        back.refresh();
        back
    }

    /// Whether the next request may begin. While one waits to be pinned, or has parts left, the
    /// others stay in the queue: together they might all wait for memory, and none would end.
    fn may_begin(&self) -> bool {
        self.has_room() && self.wait().is_none()
    }

    /// When the rate lets the next request begin; `None`: now.
    fn wait(&self) -> Option<Instant> {
        self.rate.as_ref()?.wait(Instant::now())
    }

    /// Whether the next request could begin if the rate allowed it.
    fn has_room(&self) -> bool {
        !self.free_tags.is_empty() && self.to_pin.is_none() && !self.exclusive
    }

    /// Begins the requests that are available, as many as may begin and at most the queue's size.
    fn begin(&mut self, ring: &mut Ring) -> Result<(), Broken> {
        for _ in 0..ring.size() {
            if !self.may_begin() {
                break;
            }
            let Some(chain) = ring.pop(&*self.ram)? else { break };
            let Some(tag) = self.free_tags.pop() else { break };
            let request = Request::read(&self.ram, &chain, self.bounds)?;
            if let Some(rate) = &mut self.rate {
                rate.begin(request.action.moves(), Instant::now());
            }
            let common = if self.bounds.read_only { request.action.filled_pages() } else { Vec::new() };
            let begin = |work| Begun { head: chain.head, status: request.status.clone(), work, common };
            let (task, work) = match self.plan(request.action)? {
                Planned::Transfer(transfer) => {
                    self.requests[usize::from(tag)] = Some(begin(Work::Transfer(transfer)));
                    self.next_part(ring, tag)?;
                    continue;
                }
                Planned::Task(task, work) => (task, work),
                Planned::Answer(status, written) => {
                    self.free_tags.push(tag);
                    self.answer(ring, chain.head, &request.status, status, written)?;
                    continue;
                }
            };
            self.requests[usize::from(tag)] = Some(begin(work));
            self.submit(tag, task);
        }
        Ok(())
    }

    fn plan(&self, action: Action) -> Result<Planned, Broken> {
        let transfer = |direction, offset, buffers| {
            let is_copied = self.file.is_none();
            Planned::Transfer(Transfer::new(direction, offset, buffers, self.bounds.geometry, is_copied))
        };
        Ok(match action {
            Action::Answer(status) => Planned::Answer(status, 0),
            Action::Read { to: buffers, .. } | Action::Write { from: buffers, .. } if buffers.len() == 0 => {
                Planned::Answer(Status::Ok, 0)
            }
            Action::Read { offset, to } => transfer(Direction::Read, offset, to),
            Action::Write { offset, from } => transfer(Direction::Write, offset, from),
            Action::Flush if !self.judge.may_flush() => Planned::Answer(Status::IoError, 0),
            Action::Flush => Planned::Task(Task::Sync, Work::Flush),
            Action::GetId { to } => {
                let written = to.write(&*self.ram, &self.id)?;
                Planned::Answer(Status::Ok, u32::try_from(written).map_err(|_| Broken::Layout)?)
            }
            Action::Discard { offset, length } => {
                Planned::Task(Task::Discard { offset, length }, Work::Discard)
            }
            Action::WriteZeroes { offset, length, unmap } => {
                Planned::Task(Task::Zero { offset, length, unmap }, Work::Zero { offset, length })
            }
        })
    }

    fn submit(&mut self, tag: u16, mut task: Task) {
        debug_assert!(self.bounds.geometry.allows(&mut task), "{task:?}");
        self.engine.submit(tag, task);
        self.in_flight += 1;
    }

    /// Begins the next part of transfer `tag`.
    fn next_part(&mut self, ring: &mut Ring, tag: u16) -> Result<(), Broken> {
        let Some(Begun { work: Work::Transfer(transfer), .. }) = &mut self.requests[usize::from(tag)] else {
            return Ok(());
        };
        let part = transfer.next(&self.memory, self.memory.most_pinned());
        self.exclusive = transfer.is_bounced() || transfer.has_more();
        match part {
            Ok(request) => self.to_pin = Some((tag, request)),
            Err(_) => {
                self.exclusive = false;
                return self.end(ring, tag, Status::IoError);
            }
        }
        self.pin();
        Ok(())
    }

    /// Submits what is pinned. The pinner waits for missing guest memory. A part that has to wait
    /// for this disk's own requests is tried again when one of them ends.
    ///
    /// A part for the bounce buffer waits until nothing is in flight: it may read blocks and write
    /// them back, and what others write to those meanwhile would be lost.
    fn pin(&mut self) {
        if let Some((tag, memory)) = self.pinner.pinned() {
            self.transfer(tag, memory);
        }
        let Some((tag, request)) = self.to_pin.take() else { return };
        if self.in_flight > 0 && self.is_bounced(tag) {
            self.to_pin = Some((tag, request));
            return;
        }
        match request.try_pin() {
            Ok(memory) => self.transfer(tag, memory),
            Err(request) if !self.pinner.is_busy() && (request.has_begun() || self.in_flight == 0) => {
                self.pinner.wait_for(tag, request);
            }
            Err(request) => self.to_pin = Some((tag, request)),
        }
    }

    fn is_bounced(&self, tag: u16) -> bool {
        let request = self.requests[usize::from(tag)].as_ref();
        matches!(request, Some(Begun { work: Work::Transfer(transfer), .. }) if transfer.is_bounced())
    }

    /// Submits the part of transfer `tag` in `memory`; one for the bounce buffer ends at once.
    fn transfer(&mut self, tag: u16, memory: IoGuard) {
        let Some(Begun { work: Work::Transfer(transfer), .. }) = &self.requests[usize::from(tag)] else {
            return;
        };
        match &self.file {
            Some(file) if transfer.is_bounced() => {
                debug_assert_eq!(self.in_flight, 0);
                self.bounced = Some((tag, transfer.bounce(file, &self.ram)));
                self.in_flight += 1;
            }
            _ => {
                let task = transfer.task(memory);
                self.submit(tag, task);
            }
        }
    }

    /// The next task that has ended.
    fn ended(&mut self) -> Option<Ended> {
        self.bounced.take().or_else(|| self.engine.ended())
    }

    /// Answers the requests that have ended, and goes on with those that have parts left.
    fn finish(&mut self, ring: &mut Ring) -> Result<(), Broken> {
        loop {
            self.pin();
            let Some((tag, result)) = self.ended() else { return Ok(()) };
            self.in_flight -= 1;
            let request = self.requests[usize::from(tag)].as_mut().expect("what ended has begun");
            let status = self.judge.status(&request.work, self.bounds.geometry, result);
            if let Work::Transfer(transfer) = &request.work {
                if status == Status::Ok && transfer.has_more() {
                    self.next_part(ring, tag)?;
                    continue;
                }
                if transfer.is_bounced() || transfer.has_more() {
                    self.exclusive = false;
                }
            }
            if status == Status::Ok && self.writes_through && request.work.is_change() {
                request.work = Work::Flush;
                self.submit(tag, Task::Sync);
            } else {
                self.end(ring, tag, status)?;
            }
        }
    }

    /// Answers request `tag`.
    fn end(&mut self, ring: &mut Ring, tag: u16, status: Status) -> Result<(), Broken> {
        let request = self.requests[usize::from(tag)].take().expect("what ends has begun");
        self.free_tags.push(tag);
        let written = match &request.work {
            Work::Transfer(transfer) if status == Status::Ok => transfer.written(),
            _ => 0,
        };
        self.answer(ring, request.head, &request.status, status, written)?;
        if status == Status::Ok && !request.common.is_empty() {
            self.memory.prioritize(&request.common);
        }
        Ok(())
    }

    fn answer(
        &self,
        ring: &mut Ring,
        head: u16,
        to: &Spans,
        status: Status,
        data_written: u32,
    ) -> Result<(), Broken> {
        to.write(&*self.ram, &[status as u8])?;
        // The data precedes the status byte, so this cannot overflow.
        ring.push(&*self.ram, &[(head, data_written + 1)])
    }

    fn serve_ring(&mut self, ring: &mut Ring, interrupt: &Interrupt) -> Result<Progress, Broken> {
        self.finish(ring)?;
        self.begin(ring)?;
        // First commit what has begun, so that it ends meanwhile.
        let mut stuck = self.engine.commit().is_err();
        self.finish(ring)?;
        // Then the next parts. A kernel that is short of memory takes them at the next call.
        stuck |= self.engine.commit().is_err();
        ring.notify(&*self.ram, interrupt)?;
        // Where none may begin, the next end of a request, of a wait or of the time that the rate
        // asks for goes on with the queue.
        // Decided once: were the queue neither armed nor due, it would never be served again.
        self.due = self.wait().filter(|_| self.has_room());
        let more = self.due.is_none() && self.has_room() && ring.rearm(&*self.ram)?;
        Ok(if more || stuck { Progress::More } else { Progress::Done })
    }
}

impl Back for BlockBack {
    fn start(&mut self, mut activation: Activation) -> Result<(), Broken> {
        self.writes_through = activation.features & bit::FLUSH == 0;
        if let Some(queue) = activation.queues[0].take() {
            let ring = Ring::new(0, queue, &*self.ram)?;
            if std::mem::take(&mut self.has_news) {
                // The driver may have read what it was before, or half of it.
                activation.interrupt.config_change();
            }
            self.active = Some((ring, activation.interrupt));
        }
        Ok(())
    }

    fn serve(&mut self, _event: DeviceEvent) -> Result<Progress, Broken> {
        let Some((mut ring, interrupt)) = self.active.take() else { return Ok(Progress::Done) };
        let result = self.serve_ring(&mut ring, &interrupt);
        self.active = Some((ring, interrupt));
        result
    }

    fn stop(&mut self) {
        self.active = None;
        self.to_pin = None;
        self.exclusive = false;
        self.due = None;
        while self.in_flight > 0 {
            while self.ended().is_some() {
                self.in_flight -= 1;
            }
            if self.in_flight > 0 && self.engine.wait().is_err() {
                // Interrupted, or a kernel short of memory: what is in flight must end before the
                // guest goes on.
                std::thread::yield_now();
            }
        }
        // Last: it may wait for what was in flight.
        self.pinner.cancel();
        self.requests.fill_with(|| None);
        self.free_tags = (0..QUEUE_SIZE).collect();
    }

    fn refresh(&mut self) -> bool {
        for wish in self.shared.take_growths() {
            let grown = grow(self.file.as_deref(), &self.engine, &mut self.bounds, wish.size);
            if self.shared.show(self.bounds.sectors) {
                match &self.active {
                    Some((_, interrupt)) => interrupt.config_change(),
                    None => self.has_news = true,
                }
            }
            (wish.done)(grown);
        }
        let Some(limit) = self.shared.take_rate() else { return false };
        self.rate = Rate::changed(self.rate.take(), limit, Instant::now());
        true
    }

    fn deadline(&self) -> Option<Instant> {
        self.due
    }

    fn sources(&self) -> Vec<Source<'_>> {
        let fds = [self.engine.source(), self.pinner.source()].into_iter().flatten();
        (0..).zip(fds).map(|(number, fd)| Source { number, fd, flags: PollFlags::IN }).collect()
    }
}
