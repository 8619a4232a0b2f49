//! The back half of the disk: requests on their way between the queue and the engine.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use plimsoll_pmap::{GuestRam, Intent, IoGuard, Pmap, PpnRange};
use plimsoll_units::Bytes;
use rustix::event::PollFlags;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::super::Activation;
use super::super::interrupt::Interrupt;
use super::super::ring::{Broken, Ring, Spans};
use super::super::worker::{Back, Event, Progress};
use super::engine::Engine;
use super::request::{Action, Bounds, Request, Status};
use super::task::Task;
use super::{ID_LENGTH, QUEUE_SIZE};
use crate::whole_pages::whole_pages;

/// What the zeros are written from where the file system cannot zero a range.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

pub(super) struct BlockBack {
    file: Arc<File>,
    bounds: Bounds,
    id: [u8; ID_LENGTH],
    memory: Arc<Pmap>,
    ram: GuestRam,
    engine: Engine,
    /// Requests in flight, by the engine's tag.
    in_flight: Vec<Option<InFlight>>,
    free_tags: Vec<u16>,
    active: Option<(Ring, Interrupt)>,
}

struct InFlight {
    head: u16,
    status: Spans,
    work: Work,
    /// Pages that it fills with what other VMs may have read, too.
    common: Vec<PpnRange>,
}

/// What the answer depends on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// To read so many bytes into the guest's buffers.
    Read(u32),
    /// To write so many bytes.
    Write(u32),
    Flush,
    Discard,
    Zero {
        offset: u64,
        length: u64,
    },
}

impl BlockBack {
    pub(super) fn new(file: Arc<File>, bounds: Bounds, id: &str, memory: Arc<Pmap>, engine: Engine) -> Self {
        let mut padded = [0; ID_LENGTH];
        padded.iter_mut().zip(id.bytes()).for_each(|(to, from)| *to = from);
        Self {
            file,
            bounds,
            id: padded,
            ram: memory.ram().clone(),
            memory,
            engine,
            in_flight: (0..QUEUE_SIZE).map(|_| None).collect(),
            free_tags: (0..QUEUE_SIZE).collect(),
            active: None,
        }
    }

    /// Begins the requests that are available, as many as there are tags and at most the queue's size.
    fn begin(&mut self, ring: &mut Ring) -> Result<(), Broken> {
        for _ in 0..ring.size() {
            let Some(&tag) = self.free_tags.last() else { break };
            let Some(chain) = ring.pop(&*self.ram)? else { break };
            let request = Request::read(&self.ram, &chain, self.bounds)?;
            let common = self.common_pages(&request.action);
            match self.plan(request.action)? {
                Planned::Task(task, work) => {
                    self.free_tags.pop();
                    self.in_flight[usize::from(tag)] =
                        Some(InFlight { head: chain.head, status: request.status, work, common });
                    self.engine.submit(tag, task);
                }
                Planned::Answer(status, written) => {
                    self.answer(ring, chain.head, &request.status, status, written)?;
                }
            }
        }
        Ok(())
    }

    fn plan(&self, action: Action) -> Result<Planned, Broken> {
        let io_error = Planned::Answer(Status::IoError, 0);
        Ok(match action {
            Action::Answer(status) => Planned::Answer(status, 0),
            Action::Read { to, .. } if to.len() == 0 => Planned::Answer(Status::Ok, 0),
            Action::Read { offset, to } => match self.pin(&to, Intent::Overwrite) {
                Some(memory) => Planned::Task(Task::Read { offset, memory }, Work::Read(to.len())),
                None => io_error,
            },
            Action::Write { from, .. } if from.len() == 0 => Planned::Answer(Status::Ok, 0),
            Action::Write { offset, from } => match self.pin(&from, Intent::Use) {
                Some(memory) => Planned::Task(Task::Write { offset, memory }, Work::Write(from.len())),
                None => io_error,
            },
            Action::Flush => Planned::Task(Task::Sync, Work::Flush),
            Action::GetId { to } => {
                let written = to.write(&*self.ram, &self.id)?;
                Planned::Answer(Status::Ok, u32::try_from(written).map_err(|_| Broken::Layout)?)
            }
            Action::Discard { offset, length } => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                Planned::Task(Task::Allocate { flags, offset, length }, Work::Discard)
            }
            Action::WriteZeroes { offset, length, unmap } => {
                let how = if unmap { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
                let flags = how | FallocateFlags::KEEP_SIZE;
                Planned::Task(Task::Allocate { flags, offset, length }, Work::Zero { offset, length })
            }
        })
    }

    /// The pages that are about to be filled as a whole from a disk that nobody may write.
    fn common_pages(&self, action: &Action) -> Vec<PpnRange> {
        match action {
            Action::Read { to, .. } if self.bounds.read_only => {
                to.iter().filter_map(|span| whole_pages(span.address.0, span.len.into())).collect()
            }
            _ => Vec::new(),
        }
    }

    /// `None` where a buffer spans two regions of guest memory, which no driver asks for.
    fn pin(&self, buffers: &Spans, intent: Intent) -> Option<IoGuard> {
        let ranges: Vec<_> = buffers.iter().map(|span| (span.address, Bytes(span.len.into()))).collect();
        self.memory.pin(&ranges, intent).ok()
    }

    /// Answers the requests that have ended.
    fn finish(&mut self, ring: &mut Ring) -> Result<(), Broken> {
        let mut common = Vec::new();
        while let Some((tag, result)) = self.engine.ended() {
            self.free_tags.push(tag);
            let request = self.in_flight[usize::from(tag)].take().expect("what ended was in flight");
            let status = self.judge(request.work, result);
            let written = match request.work {
                Work::Read(length) if status == Status::Ok => length,
                _ => 0,
            };
            self.answer(ring, request.head, &request.status, status, written)?;
            if status == Status::Ok {
                common.extend(request.common);
            }
        }
        if !common.is_empty() {
            self.memory.hurry(&common);
        }
        Ok(())
    }

    fn judge(&self, work: Work, result: io::Result<u32>) -> Status {
        let unsupported = |error: &io::Error| error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error());
        let ok = match (work, result) {
            // The kernel ends a transfer early only where the file does or the space: see io_uring's and preadv's
            // handling of regular files and block devices.
            (Work::Read(length) | Work::Write(length), Ok(done)) => done == length,
            (Work::Flush | Work::Discard | Work::Zero { .. }, Ok(_)) => true,
            // What a discarded sector holds is undefined, so what it held will do.
            (Work::Discard, Err(error)) => unsupported(&error),
            (Work::Zero { offset, length }, Err(error)) => {
                unsupported(&error) && self.write_zeros(offset, length).is_ok()
            }
            (_, Err(_)) => false,
        };
        if ok { Status::Ok } else { Status::IoError }
    }

    fn write_zeros(&self, mut offset: u64, length: u64) -> io::Result<()> {
        let end = offset + length;
        while offset < end {
            let count = ZEROS.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
            self.file.write_all_at(&ZEROS[..count], offset)?;
            offset += count as u64;
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
        // A kernel short of memory takes it at the next turn: whatever ends, or the next notification.
        let stuck = self.engine.commit().is_err();
        self.finish(ring)?;
        ring.notify(&*self.ram, interrupt)?;
        // Without a tag left, the next end of a request goes on with the queue.
        let more = !self.free_tags.is_empty() && ring.rearm(&*self.ram)?;
        Ok(if more || stuck { Progress::More } else { Progress::Done })
    }
}

enum Planned {
    Task(Task, Work),
    Answer(Status, u32),
}

impl Back for BlockBack {
    fn start(&mut self, mut activation: Activation) -> Result<(), Broken> {
        if let Some(queue) = activation.queues[0].take() {
            self.active = Some((Ring::new(queue, &*self.ram)?, activation.interrupt));
        }
        Ok(())
    }

    fn serve(&mut self, _event: Event) -> Result<Progress, Broken> {
        let Some((mut ring, interrupt)) = self.active.take() else { return Ok(Progress::Done) };
        let result = self.serve_ring(&mut ring, &interrupt);
        self.active = Some((ring, interrupt));
        result
    }

    fn stop(&mut self) {
        self.active = None;
        while self.free_tags.len() < usize::from(QUEUE_SIZE) {
            while let Some((tag, _result)) = self.engine.ended() {
                self.free_tags.push(tag);
                self.in_flight[usize::from(tag)] = None;
            }
            if self.free_tags.len() < usize::from(QUEUE_SIZE) && self.engine.wait().is_err() {
                // Interrupted, or a kernel short of memory: what is in flight must end before the guest goes on.
                std::thread::yield_now();
            }
        }
    }

    fn source(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.engine.source().map(|fd| (fd, PollFlags::IN))
    }
}
