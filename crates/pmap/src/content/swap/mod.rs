//! One VM's share of the host's swap: pages written to a file, and read back.
//!
//! [`Swap`] knows slots, buffers and I/O. It does not know which page leaves, its state, or its
//! cost; here an *owner* is a number that comes back with a completion. Only
//! [`Swap::wait_for_buffers`] waits for the disk, so all else may be called under a chunk's lock.
//!
//! # The file
//!
//! | bytes | content |
//! |---|---|
//! | `n * 4096` to `n * 4096 + 4095` | slot `n`: a page, as it was or encrypted; anything, where the slot is not in use |
//!
//! There is no header, no table and no checksum: only the VMM that wrote a slot knows whose it is,
//! and that dies with the VMM. The next VMM may be given the file as it is.
//!
//! Encrypted, a page is AES-256-XTS with the slot's number as its data unit (see `cipher.rs`). The
//! key lives as long as the [`Swap`], in its memory only: when the VMM is gone, so is what was in
//! the file.
//!
//! # A slot's life
//!
//! | from | by | to |
//! |---|---|---|
//! | free | [`Swap::reserve`] | reserved |
//! | reserved | [`Swap::write`] | being written: [`Swap::pending`] gives its content |
//! | being written | its [`Written`] is dropped | written, or after an error still only reserved |
//! | written | [`Swap::read`] | being read |
//! | being read | its [`Read`] is dropped | written |
//! | reserved, written | [`Swap::free`] | free |
//! | being written or read | [`Swap::free`] | doomed: free once its completion is dropped |
//!
//! A completion is a value that holds on to its slot. If the page, under its chunk's lock, is still
//! in the state that was left for this slot, the completion is about this I/O and not about an
//! earlier one: the slot cannot have been reused. A failed write's content can still be taken back
//! with [`Swap::pending`].
//!
//! # Threads that enter the kernel
//!
//! Reads and writes are queued, which makes the descriptor readable; [`Swap::completions`] begins
//! them and collects those that have ended. Only threads that never wait in the kernel for a guest
//! page may call it, such as those that serve faults. The kernel finishes direct I/O as work of the
//! thread that began it. If that thread then read from a file into guest memory and met a page that
//! is being read in, it would wait inside the kernel for work that only itself does on the way out.
//!
//! Where io_uring is refused, a thread of the swap's does the I/O.
//!
//! # Bounds
//!
//! [`WRITE_BUFFERS`] and [`READ_BUFFERS`] bound the memory, [`engine::DEPTH`] the I/Os in flight.
//! Reads that find no buffer wait in a queue with one entry for each arriving page at most;
//! arriving pages are charged.

mod buffers;
mod cipher;
#[cfg(test)]
pub(crate) mod defects;
#[cfg_attr(all(test, feature = "model-check"), path = "../../model_check/engine.rs")]
pub(crate) mod engine;
#[cfg(all(test, feature = "model-check"))]
#[path = "../../model_check/event.rs"]
mod event;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
mod iovec;
mod mmap;
mod schedule;
mod slots;
mod task;
#[cfg(test)]
#[cfg(not(feature = "model-check"))]
pub(crate) mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

#[cfg(not(all(test, feature = "model-check")))]
use plimsoll_sys::event;
use plimsoll_units::{PAGE_SIZE, Pages};

pub(crate) use buffers::Buffer;
pub(crate) use slots::SwapSlot;

use crate::address::PAGE;
use crate::lock::{Lock, SWAP_BOOK, SWAP_QUEUE, SWAP_SCHEDULE};
use crate::sync::Arc;
use buffers::BufferPool;
use cipher::Cipher;
#[cfg(test)]
use defects::Slots;
use engine::Engine;
use event::Event;
use schedule::{Outcome, Queue, Schedule};
#[cfg(not(test))]
use slots::Slots;

/// Pages that may be on their way to the file: 1 MiB. Fewer than a disk writes in the time of a
/// wake-up leave it idle; more is memory that is not given back yet.
const WRITE_BUFFERS: usize = 256;
/// Pages that may be on their way back, those read ahead included. They are apart from those for
/// writes, so that a fault never waits for a write.
const READ_BUFFERS: usize = 128;

/// Where a VM's pages may be swapped to.
#[derive(Debug)]
pub struct SwapSpace {
    /// A file or a block device, open for reading and writing, if possible with `O_DIRECT`:
    /// otherwise the host's page cache keeps the pages in memory that were to leave it. It is the
    /// VM's alone and at least `slots` pages long. What it holds does not matter.
    pub file: OwnedFd,
    /// Pages that it takes.
    pub slots: Pages,
    /// Encrypt what is written, with a key that only this process ever has.
    pub encrypt: bool,
}

/// Pages of a VM that are in a file, or on their way. See the module's documentation.
#[derive(Debug)]
pub(crate) struct Swap {
    shared: Arc<Shared>,
    #[cfg(test)]
    probe: defects::Probe,
}

#[derive(Debug)]
struct Shared {
    book: Lock<Book, SWAP_BOOK>,
    queue: Lock<Queue, SWAP_QUEUE>,
    schedule: Lock<Schedule, SWAP_SCHEDULE>,
    write_buffers: Arc<BufferPool>,
    event: Event,
    cipher: Option<Cipher>,
}

#[derive(Debug)]
struct Book {
    slots: Slots,
    /// What slots that are being written will hold.
    leaving: HashMap<SwapSlot, Arc<Buffer>>,
}

/// I/O on one page that has ended.
#[derive(Debug)]
pub(crate) enum Completion {
    Read(Read),
    Written(Written),
}

/// A page that was read, or could not be.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) slot: SwapSlot,
    pub(crate) owner: u64,
    pub(crate) result: io::Result<Buffer>,
    _hold: Hold,
}

/// A page that was written, or could not be. Its content can be had from [`Swap::pending`] while
/// this lives.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) slot: SwapSlot,
    pub(crate) owner: u64,
    pub(crate) result: io::Result<()>,
    _hold: Hold,
}

/// Keeps a slot from being reused.
#[derive(Debug)]
struct Hold {
    shared: Arc<Shared>,
    slot: SwapSlot,
    write: bool,
}

impl Swap {
    /// Makes all system calls that a jail forbids.
    ///
    /// # Errors
    /// The file is too short for its slots, there are more of them than 32 bits count, or the
    /// kernel has no memory or no descriptor left.
    pub(crate) fn new(space: SwapSpace) -> io::Result<Self> {
        Self::with(space, Engine::new)
    }

    fn with(space: SwapSpace, engine: impl FnOnce(File, &Event) -> Engine) -> io::Result<Self> {
        let slots = check(&space)?;
        let event = Event::new()?;
        let engine = engine(space.file.into(), &event);
        let read_buffers = BufferPool::new(READ_BUFFERS, &event)?;
        let shared = Shared {
            book: Lock::new(Book { slots: Slots::new(slots), leaving: HashMap::new() }),
            queue: Lock::default(),
            schedule: Lock::new(Schedule::new(engine, read_buffers)),
            write_buffers: BufferPool::new(WRITE_BUFFERS, &event)?,
            cipher: if space.encrypt { Some(Cipher::new()?) } else { None },
            event,
        };
        Ok(Self {
            shared: Arc::new(shared),
            #[cfg(test)]
            probe: defects::Probe::default(),
        })
    }

    /// Takes up to `count` free slots, adjacent as far as possible; fewer if fewer are free.
    pub(crate) fn reserve(&self, count: u16) -> Vec<SwapSlot> {
        self.shared.book.lock().slots.reserve(count)
    }

    /// Gives a slot back: at once, or when the completion of I/O in flight on it is dropped.
    pub(crate) fn free(&self, slot: SwapSlot) {
        self.shared.book.lock().slots.free(slot);
    }

    /// Slots that can be reserved.
    pub(crate) fn free_slots(&self) -> Pages {
        Pages(self.shared.book.lock().slots.free_slots().into())
    }

    /// Nothing is queued or in flight, and every completion was dropped.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.book.lock().slots.is_idle()
    }

    /// A buffer for a page that is to be written. Its content is arbitrary.
    pub(crate) fn buffer(&self) -> Option<Buffer> {
        self.shared.write_buffers.take()
    }

    /// Waits until [`buffer`](Self::buffer) has `count`, for at most `timeout`; returns whether it
    /// has any. Other threads may take them.
    pub(crate) fn wait_for_buffers(&self, count: usize, timeout: Duration) -> bool {
        self.shared.write_buffers.wait(count, timeout)
    }

    /// Writes pages to reserved slots, each with the number of its owner. Pages that come one after
    /// the other, in one call or several, and have adjacent slots are written together.
    pub(crate) fn write(&self, pages: Vec<(SwapSlot, u64, Buffer)>) {
        if pages.is_empty() {
            return;
        }
        let mut leaving = Vec::with_capacity(pages.len());
        for (slot, owner, mut buffer) in pages {
            if let Some(cipher) = &self.shared.cipher {
                cipher.encrypt(slot, &mut buffer);
            }
            leaving.push((slot, owner, Arc::new(buffer)));
        }
        let mut book = self.shared.book.lock();
        for (slot, _, buffer) in &leaving {
            book.slots.begin(*slot);
            book.leaving.insert(*slot, Arc::clone(buffer));
        }
        drop(book);
        let mut queue = self.shared.queue.lock();
        leaving.into_iter().for_each(|(slot, owner, buffer)| queue.write(slot, owner, buffer));
        drop(queue);
        self.shared.event.signal();
    }

    /// Reads the content of a slot that is being written; false if it is not being written.
    pub(crate) fn pending(&self, slot: SwapSlot, content: &mut [u8; PAGE]) -> bool {
        let buffer = self.shared.book.lock().leaving.get(&slot).map(Arc::clone);
        let Some(buffer) = buffer else { return false };
        *content = **buffer;
        if let Some(cipher) = &self.shared.cipher {
            cipher.decrypt(slot, content);
        }
        true
    }

    /// Reads the slot `first` and those behind it, one for each owner. All must have been written.
    pub(crate) fn read(&self, first: SwapSlot, owners: &[u64]) {
        if owners.is_empty() {
            return;
        }
        let mut book = self.shared.book.lock();
        (0..owners.len()).for_each(|index| book.slots.begin(first.plus(index)));
        drop(book);
        self.shared.queue.lock().read(first, owners);
        self.shared.event.signal();
    }

    /// Whether something is queued that [`completions`](Self::completions) would begin.
    pub(crate) fn is_queued(&self) -> bool {
        !self.shared.queue.lock().is_empty()
    }

    /// Whether I/O is in flight.
    pub(crate) fn is_busy(&self) -> bool {
        self.shared.schedule.lock().is_busy()
    }

    /// Begins what was queued, and returns what has ended. To be called whenever the descriptor is
    /// readable, by threads that never wait in the kernel for a guest page.
    pub(crate) fn completions(&self) -> Vec<Completion> {
        let shared = &self.shared;
        // Before looking: a signal that comes meanwhile is for the next call.
        shared.event.clear();
        let mut outcomes = Vec::new();
        if let Err(error) = shared.schedule.lock().advance(&shared.queue, &mut outcomes) {
            tracing::debug!(%error, "the kernel takes no I/O for the swap now: tried again");
            shared.event.signal();
        }
        let completions: Vec<_> = outcomes.into_iter().map(|outcome| shared.completion(outcome)).collect();
        #[cfg(test)]
        self.probe.see(&completions);
        completions
    }

    /// Switches a deliberate defect on, or off again.
    #[cfg(test)]
    pub(crate) fn mutate(&self, mutation: Option<crate::mutation::Mutation>) {
        let early_reuse = mutation == Some(crate::mutation::Mutation::EarlyReuse);
        self.shared.book.lock().slots.early_reuse = early_reuse;
    }

    /// Has `probe` see every completion before it is returned.
    #[cfg(test)]
    pub(crate) fn probe(&self, probe: Option<defects::BeforeCompletion>) {
        *self.probe.0.lock().unwrap() = probe;
    }

    /// What the device may be told to do wrong.
    #[cfg(test)]
    pub(crate) fn faults(&self) -> Arc<engine::Faults> {
        Arc::clone(&self.shared.schedule.lock().engine.faults)
    }
}

/// Readable when [`Swap::completions`] has something to begin or to return.
impl AsFd for Swap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}

impl Shared {
    fn completion(self: &Arc<Self>, outcome: Outcome) -> Completion {
        let hold = |slot, write| Hold { shared: Arc::clone(self), slot, write };
        match outcome {
            Outcome::Read(slot, owner, mut result) => {
                if let (Some(cipher), Ok(page)) = (&self.cipher, &mut result) {
                    cipher.decrypt(slot, page);
                }
                Completion::Read(Read { slot, owner, result, _hold: hold(slot, false) })
            }
            Outcome::Written(slot, owner, result) => {
                Completion::Written(Written { slot, owner, result, _hold: hold(slot, true) })
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut book = self.shared.book.lock();
        // Out of the map before the slot can be reused, and dropped after the lock.
        let written = if self.write { book.leaving.remove(&self.slot) } else { None };
        book.slots.end(self.slot);
        drop(book);
        drop(written);
    }
}

/// The number of slots, if the file has them.
fn check(space: &SwapSpace) -> io::Result<u32> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
    // The last number is kept free: it stands for slots beyond the end.
    let slots = u32::try_from(space.slots.0).ok().filter(|&slots| slots < u32::MAX);
    let slots = slots.ok_or_else(|| invalid("a VM's swap is at most 2^32 - 2 pages (16 TiB)"))?;
    let file = rustix::fs::fstat(&space.file)?;
    let regular = rustix::fs::FileType::from_raw_mode(file.st_mode).is_file();
    if regular && u64::try_from(file.st_size).is_ok_and(|size| size < u64::from(slots) * PAGE_SIZE) {
        return Err(invalid("the swap file is shorter than its slots: extend it before the VM starts"));
    }
    Ok(slots)
}
