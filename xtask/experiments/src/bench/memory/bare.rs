//! The simplest server of page faults, which ours is compared with.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use plimsoll_pmap::uffd::Uffd;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::buffer::PageBuffer;
use super::plain::Plain;
use super::processor::{self, Place};
use super::userfaultfd;

/// Memory with the simplest server of its page faults that there can be: it waits for a fault,
/// takes it, gets the page and copies it in. What ours is compared with.
pub(crate) struct Bare {
    memory: Arc<Plain>,
    stop: Arc<OwnedFd>,
    server: Option<JoinHandle<()>>,
}

impl Bare {
    /// Memory of `chunks` chunks. For each fault, `get` puts the content of the page at that offset
    /// into the buffer, at `place`.
    pub(crate) fn new(
        chunks: u64,
        place: Place,
        mut get: impl FnMut(usize, &mut PageBuffer) -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let memory = Arc::new(Plain::new(chunks, false)?);
        let uffd = Uffd::open()?;
        userfaultfd::register(&uffd, &memory).context("registering memory to compare with")?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).context("making an event")?);
        let (served, stopped) = (Arc::clone(&memory), Arc::clone(&stop));
        let server = std::thread::spawn(move || {
            processor::stay(place);
            // Without it a thread that touches the memory hangs: better to end with a message.
            serve(&uffd, &served, &stopped, &mut get).expect("a userfaultfd serves its faults");
        });
        Ok(Self { memory, stop, server: Some(server) })
    }

    /// Reads the first word of the page at `offset`; how long that took, and the word.
    pub(crate) fn touch(&self, offset: usize) -> Result<(Duration, u64)> {
        let start = Instant::now();
        let word = self.memory.read(offset)?;
        Ok((start.elapsed(), word))
    }

    /// Makes all pages missing again.
    pub(crate) fn discard(&self) -> Result<()> {
        self.memory.discard(0, self.memory.len())
    }
}

fn serve(
    uffd: &Uffd,
    memory: &Plain,
    stop: &OwnedFd,
    get: &mut impl FnMut(usize, &mut PageBuffer) -> Result<()>,
) -> Result<()> {
    let mut page = Box::new(PageBuffer::ZERO);
    loop {
        let mut fds = [PollFd::new(uffd, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        poll(&mut fds, None).context("waiting for page faults")?;
        if !fds[1].revents().is_empty() {
            return Ok(());
        }
        if let Some(address) = userfaultfd::next_fault(uffd).context("reading a page fault")? {
            let offset = usize::try_from(address - memory.address())?;
            get(offset, &mut page)?;
            userfaultfd::copy(uffd, memory, offset, &page).context("copying a page in")?;
        }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        rustix::io::write(&self.stop, &1_u64.to_ne_bytes()).expect("an event that was never written can be");
        if let Some(server) = self.server.take() {
            // It has said what was wrong.
            server.join().ok();
        }
    }
}
