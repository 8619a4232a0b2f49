//! The kernel of the model: page tables, frames, and the threads that wait for the answer to a page
//! fault.
//!
//! It does what Linux does as far as guest memory can tell (mm/userfaultfd.c, fs/userfaultfd.c),
//! each system call and each access of a processor in one indivisible step, and anything may happen
//! between two steps. What it knows of a page:
//!
//! | page | touched for reading | touched for writing |
//! |---|---|---|
//! | missing, not armed | the page of zeros appears | a frame of zeros appears |
//! | missing, armed | a fault is sent; the thread sleeps until woken, and tries again | the same |
//! | the page of zeros | reads zeros | a frame of zeros appears |
//! | a frame | reads it | writes it |
//! | either, write-protected | as before | a fault is sent, as for an armed page that is missing |
//! | a shared frame's mapping | reads the shared frame, armed or not | a frame of the page's own with its content appears |
//! | the same, write-protected | as before | a fault is sent; where nobody had read the page, that frame has appeared before |
//!
//! A page stays in a shared frame's mapping when it has got a frame of its own: discarded, it is
//! the shared frame again.
//!
//! Left out: what the processors' address caches remember (every change of a mapping flushes them
//! before the system call returns), huge pages except that the kernel may bring in more than was
//! touched, and running out of memory.

mod state;

use std::io;
use std::ops::Range;
use std::sync::PoisonError;

use plimsoll_units::FrameNo;
use shuttle::sync::{Condvar, Mutex, MutexGuard};

use crate::address::PageSet;
use crate::address::{CHUNK, HostRange, PAGE};
use crate::memory::{Fault, Ready};
use crate::sync::lock;
pub(crate) use state::Frame;
use state::{Backing, Page, State, Touch};

/// Where the kernel puts the mapping. Nothing is there: an access that does not go through
/// [`Kernel`] ends the test.
pub(crate) const BASE: usize = 1 << 40;

const CHUNK_PAGES: usize = CHUNK / PAGE;

shuttle::lazy_static! {
    static ref KERNEL: Kernel = Kernel::default();
}

/// The kernel under which this execution of the model runs.
pub(crate) fn kernel() -> &'static Kernel {
    &KERNEL
}

/// The kernel, with one address space.
#[derive(Default)]
pub(crate) struct Kernel {
    state: Mutex<State>,
    /// A thread that sleeps in a page fault was woken.
    woken: Condvar,
    /// A thread that serves faults has something to do.
    news: Condvar,
}

/// Guest memory as processors and devices see it.
impl Kernel {
    /// One indivisible load by a processor of `into.len()` bytes within a page.
    pub(crate) fn load(&self, offset: usize, into: &mut [u8]) {
        let state = self.touch(offset / PAGE, Touch::Read);
        match state.content_of(offset / PAGE) {
            Some(content) => into.copy_from_slice(&content[within(offset, into.len())]),
            None => into.fill(0),
        }
    }

    /// One indivisible store by a processor within a page.
    pub(crate) fn store(&self, offset: usize, content: &[u8]) {
        self.grab(offset / PAGE, |frame| frame[within(offset, content.len())].copy_from_slice(content));
    }

    /// Makes a page present and writable, as a device's I/O does at its start, and returns the
    /// frame behind it.
    pub(crate) fn frame(&self, page: usize) -> Frame {
        self.grab(page, |_| {})
    }

    fn grab(&self, page: usize, work: impl FnOnce(&mut [u8; PAGE])) -> Frame {
        let mut state = self.touch(page, Touch::Write);
        let Backing::Frame(frame) = state.pages[page].backing else {
            unreachable!("it was touched for writing")
        };
        work(state.content(frame));
        frame
    }

    /// A device writes to a frame, whatever has become of the page that was there.
    pub(crate) fn dma(&self, frame: Frame, at: usize, content: &[u8]) {
        self.state().content(frame)[within(at, content.len())].copy_from_slice(content);
    }

    /// Copies a page that is there to one that is not armed. The processor does it: nothing keeps
    /// others from writing meanwhile.
    pub(crate) fn copy(&self, from: usize, to: usize) {
        let mut content = [0; PAGE];
        self.load(from * PAGE, &mut content);
        let mut state = self.state();
        state.pages[to].backing = Backing::Frame(state.new_frame(Some(&content)));
    }

    /// Whether a page holds what a shared frame does.
    pub(crate) fn equals(&self, page: usize, frame: FrameNo) -> bool {
        let mut content = [0; PAGE];
        self.load(page * PAGE, &mut content);
        self.state().pool.get(&frame).is_some_and(|shared| **shared == content)
    }

    /// Writes a frame, as the owner of the file of shared frames does.
    pub(crate) fn write_shared(&self, frame: FrameNo, content: &[u8; PAGE]) {
        self.state().pool.insert(frame, Box::new(*content));
    }

    /// Touches a page until that is no fault, and returns with nothing having happened since.
    fn touch(&self, page: usize, touch: Touch) -> MutexGuard<'_, State> {
        loop {
            let mut state = self.state();
            if state.passes(page, touch) {
                return state;
            }
            let ticket = state.send(page, touch);
            drop(state);
            self.news.notify_all();
            // The kernel sends first and looks again afterwards: the answer may have come by then.
            let mut state = self.state();
            if !state.would_pass(page, touch) {
                while !state.is_woken(ticket) {
                    state = self.woken.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
            state.sleepers.retain(|sleeper| sleeper.ticket != ticket);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// System calls.
impl Kernel {
    pub(crate) fn map(&self, len: usize) {
        let mut state = self.state();
        assert!(state.pages.is_empty(), "the model has one mapping");
        state.pages = vec![Page::default(); len / PAGE];
    }

    /// MADV_DONTNEED.
    pub(crate) fn discard(&self, pages: Range<usize>) {
        for page in &mut self.state().pages[pages] {
            page.backing = Backing::Missing;
            // Anonymous memory keeps no trace of a protection.
            page.protected &= page.shared.is_some();
        }
    }

    /// mremap(2) with MREMAP_DONTUNMAP: pages go from one place to another, which is not armed
    /// then. They must be anonymous: each mapping of a shared frame is one of its own.
    pub(crate) fn relocate(&self, from: Range<usize>, to: usize) -> io::Result<()> {
        let mut state = self.state();
        if state.pages[from.clone()].iter().any(|page| page.shared.is_some()) {
            return Err(io::Error::from_raw_os_error(libc::EFAULT));
        }
        for (from, to) in from.zip(to..) {
            let backing = std::mem::take(&mut state.pages[from].backing);
            state.pages[from].protected = false;
            state.pages[to] = Page { backing, ..Page::default() };
        }
        Ok(())
    }

    /// mmap(2) with MAP_FIXED and MAP_PRIVATE: shared frames, from `first` on, in the place of
    /// pages.
    pub(crate) fn overlay(&self, pages: Range<usize>, first: FrameNo) {
        let mut state = self.state();
        for (page, frame) in pages.zip(first.0..) {
            state.pages[page] = Page { shared: Some(FrameNo(frame)), ..Page::default() };
        }
    }

    /// UFFDIO_REGISTER, for missing pages and for write protection.
    pub(crate) fn register(&self, range: HostRange) {
        self.state().pages[pages(range)].iter_mut().for_each(|page| page.armed = true);
    }

    /// UFFDIO_UNREGISTER.
    pub(crate) fn unregister(&self, range: HostRange) {
        let mut state = self.state();
        for page in &mut state.pages[pages(range)] {
            (page.armed, page.protected) = (false, false);
        }
        self.wake_in(&mut state, range);
    }

    /// UFFDIO_WAKE.
    pub(crate) fn wake(&self, range: HostRange) {
        self.wake_in(&mut self.state(), range);
    }

    /// UFFDIO_COPY of one page, or UFFDIO_ZEROPAGE where there is no content.
    pub(crate) fn provide(
        &self,
        address: u64,
        content: Option<&[u8; PAGE]>,
        protected: bool,
        wake: bool,
    ) -> io::Result<()> {
        let range = HostRange { start: address, len: PAGE as u64 };
        let page = pages(range).start;
        let mut state = self.state();
        if !state.pages[page].armed {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        if state.pages[page].backing != Backing::Missing {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        assert!(state.pages[page].shared.is_none(), "what is in a shared frame's mapping is never absent");
        let backing =
            content.map_or(Backing::Zeros, |content| Backing::Frame(state.new_frame(Some(content))));
        state.pages[page] = Page { armed: true, protected, backing, shared: None };
        if wake {
            self.wake_in(&mut state, range);
        }
        Ok(())
    }

    /// UFFDIO_WRITEPROTECT. Taking the protection away wakes.
    pub(crate) fn write_protect(&self, range: HostRange, protect: bool) -> io::Result<()> {
        let mut state = self.state();
        let touched = &mut state.pages[pages(range)];
        if touched.iter().any(|page| !page.armed) {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        for page in touched {
            page.protected = protect && (page.backing != Backing::Missing || page.shared.is_some());
        }
        if !protect {
            self.wake_in(&mut state, range);
        }
        Ok(())
    }

    /// poll(2) on the userfaultfd, on the descriptor that says that it is the end, and on that of
    /// the swap.
    pub(crate) fn wait(&self) -> Ready {
        let mut state = self.state();
        while !state.stopped
            && !state.signalled
            && state.sleepers.iter().all(|sleeper| sleeper.read || sleeper.woken)
        {
            state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ready { stop: state.stopped, other: state.signalled, late: false }
    }

    /// Makes the swap's descriptor readable, or not.
    pub(crate) fn signal(&self, readable: bool) {
        self.state().signalled = readable;
        if readable {
            self.news.notify_all();
        }
    }

    /// read(2) on the userfaultfd.
    pub(crate) fn read(&self) -> Vec<Fault> {
        let mut state = self.state();
        let unread = state.sleepers.iter_mut().filter(|sleeper| !sleeper.read && !sleeper.woken);
        unread
            .map(|sleeper| {
                sleeper.read = true;
                sleeper.fault
            })
            .collect()
    }

    /// From now on [`Kernel::wait`] tells that it is the end.
    pub(crate) fn stop(&self) {
        self.state().stopped = true;
        self.news.notify_all();
    }

    /// /proc/self/pagemap: the pages of the chunk at `start` that have a backing.
    pub(crate) fn backed(&self, start: u64) -> PageSet {
        self.pages_of_chunk(start, |page| page.backing != Backing::Missing)
    }

    /// The same: those that have a frame which is not shared.
    pub(crate) fn own(&self, start: u64) -> PageSet {
        self.pages_of_chunk(start, |page| matches!(page.backing, Backing::Zeros | Backing::Frame(_)))
    }

    /// The same: those that are write-protected.
    pub(crate) fn protected(&self, start: u64) -> PageSet {
        self.pages_of_chunk(start, |page| page.protected)
    }

    fn pages_of_chunk(&self, start: u64, like: impl Fn(&Page) -> bool) -> PageSet {
        let state = self.state();
        let chunk = &state.pages[pages(HostRange { start, len: CHUNK as u64 })];
        (0..).zip(chunk).filter(|(_, page)| like(page)).map(|(slot, _)| slot).collect()
    }

    fn wake_in(&self, state: &mut State, range: HostRange) {
        let range = pages(range);
        state
            .sleepers
            .iter_mut()
            .filter(|sleeper| range.contains(&sleeper.page))
            .for_each(|s| s.woken = true);
        self.woken.notify_all();
    }
}

/// The bytes of a page at `offset`, which may count from anywhere.
fn within(offset: usize, len: usize) -> Range<usize> {
    offset % PAGE..offset % PAGE + len
}

fn pages(range: HostRange) -> Range<usize> {
    let address = |address: u64| usize::try_from(address).expect("an address of this machine");
    let first = (address(range.start) - BASE) / PAGE;
    first..first + address(range.len) / PAGE
}
