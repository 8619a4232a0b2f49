//! What the kernel knows of each page, and what a touch of it does.

use std::collections::BTreeMap;

use plimsoll_units::FrameNo;
use shuttle::rand::{Rng, thread_rng};

use super::{BASE, CHUNK_PAGES};
use crate::address::PAGE;
use crate::memory::Fault;

#[derive(Default)]
pub(super) struct State {
    pub(super) pages: Vec<Page>,
    /// Their content; `None`: zeros.
    pub(super) frames: Vec<Option<Box<[u8; PAGE]>>>,
    /// The file of shared frames.
    pub(super) pool: BTreeMap<FrameNo, Box<[u8; PAGE]>>,
    pub(super) sleepers: Vec<Sleeper>,
    pub(super) tickets: u64,
    pub(super) stopped: bool,
    pub(super) signalled: bool,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Page {
    pub(super) armed: bool,
    pub(super) protected: bool,
    pub(super) backing: Backing,
    /// In whose mapping it is, where that is not anonymous.
    pub(super) shared: Option<FrameNo>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Backing {
    #[default]
    Missing,
    Zeros,
    /// The shared frame itself.
    Shared,
    Frame(Frame),
}

/// A page of machine memory. It stays where it is when it is unmapped, so that a thread that still
/// writes to it writes in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame(usize);

/// A thread that has sent a fault.
pub(super) struct Sleeper {
    pub(super) ticket: u64,
    pub(super) page: usize,
    pub(super) fault: Fault,
    /// A thread that serves faults has read the fault.
    pub(super) read: bool,
    pub(super) woken: bool,
}

/// What a fault message finds when it looks for the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    Read,
    Write,
}

impl State {
    pub(super) fn would_pass(&self, page: usize, touch: Touch) -> bool {
        let Page { armed, protected, backing, shared } = self.pages[page];
        if backing == Backing::Missing && shared.is_none() {
            !armed
        } else {
            !protected || touch == Touch::Read
        }
    }

    /// Whether a touch is no fault that is sent. What the kernel serves by itself is there then.
    pub(super) fn passes(&mut self, page: usize, touch: Touch) -> bool {
        let passes = self.would_pass(page, touch);
        let Page { backing, shared, .. } = self.pages[page];
        match (backing, shared, touch) {
            (Backing::Missing, Some(_), Touch::Read) => self.pages[page].backing = Backing::Shared,
            // Before it looks whether that may be written.
            (Backing::Missing, Some(_), Touch::Write) => self.new_copy(page),
            _ if !passes => {}
            (Backing::Missing, None, Touch::Read) => self.pages[page].backing = Backing::Zeros,
            (Backing::Missing, None, Touch::Write) => {
                self.new_zeros(page);
                self.fault_around(page);
            }
            (Backing::Shared, _, Touch::Write) => self.new_copy(page),
            (Backing::Zeros, _, Touch::Write) => self.new_zeros(page),
            (Backing::Zeros | Backing::Shared | Backing::Frame(_), ..) => {}
        }
        passes
    }

    /// The kernel may bring in more than was touched: a huge page, if the rest of the chunk is
    /// missing as well.
    pub(super) fn fault_around(&mut self, page: usize) {
        let first = page / CHUNK_PAGES * CHUNK_PAGES;
        let others = (first..first + CHUNK_PAGES).filter(|&other| other != page);
        let missing = |page: &Page| !page.armed && page.backing == Backing::Missing && page.shared.is_none();
        if others.clone().all(|other| missing(&self.pages[other])) && thread_rng().gen_bool(0.5) {
            others.for_each(|other| self.new_zeros(other));
        }
    }

    pub(super) fn new_zeros(&mut self, page: usize) {
        self.pages[page].backing = Backing::Frame(self.new_frame(None));
    }

    pub(super) fn new_copy(&mut self, page: usize) {
        let content =
            self.pages[page].shared.and_then(|frame| self.pool.get(&frame)).map(|content| **content);
        self.pages[page].backing = Backing::Frame(self.new_frame(content.as_ref()));
    }

    /// What a page holds; `None`: zeros.
    pub(super) fn content_of(&self, page: usize) -> Option<&[u8; PAGE]> {
        let Page { backing, shared, .. } = self.pages[page];
        match backing {
            Backing::Frame(frame) => self.frames[frame.0].as_deref(),
            Backing::Shared => self.pool.get(&shared?).map(|content| &**content),
            Backing::Zeros | Backing::Missing => None,
        }
    }

    pub(super) fn new_frame(&mut self, content: Option<&[u8; PAGE]>) -> Frame {
        self.frames.push(content.map(|content| Box::new(*content)));
        Frame(self.frames.len() - 1)
    }

    pub(super) fn content(&mut self, frame: Frame) -> &mut [u8; PAGE] {
        self.frames[frame.0].get_or_insert_with(|| Box::new([0; PAGE]))
    }

    pub(super) fn send(&mut self, page: usize, touch: Touch) -> u64 {
        self.tickets += 1;
        let fault = Fault { address: (BASE + page * PAGE) as u64, write: touch == Touch::Write };
        self.sleepers.push(Sleeper { ticket: self.tickets, page, fault, read: false, woken: false });
        self.tickets
    }

    pub(super) fn is_woken(&self, ticket: u64) -> bool {
        self.sleepers.iter().any(|sleeper| sleeper.ticket == ticket && sleeper.woken)
    }
}
