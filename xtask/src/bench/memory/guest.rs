use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use plimsoll_pmap::uffd::Uffd;
use plimsoll_pmap::{Config, GrantSource, Pmap, PpnRange};
use plimsoll_units::{PAGE_SIZE, Pages, Ppn};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Guest memory whose faults are served by a thread, as in the VMM.
pub(crate) struct Guest {
    pub(crate) pmap: Arc<Pmap>,
    stop: EventFd,
    server: Option<JoinHandle<()>>,
}

/// The benchmarks grant at the start all that they use.
struct NoMore;

impl GrantSource for NoMore {
    fn want(&self, _total: Pages) {}
}

impl Guest {
    /// Guest memory of `chunks` chunks, all of it granted.
    pub(crate) fn new(chunks: u64, huge_pages: bool) -> Result<Self> {
        let size = Pages(chunks * Pages::CHUNK.0);
        let config = Config {
            regions: vec![PpnRange::new(Ppn(0), size)],
            uffd: Uffd::open()?,
            huge_pages,
            grant: size,
            store: Pages::ZERO,
            swap: None,
        };
        let pmap = Pmap::new(config, Arc::new(NoMore))?;
        let stop = EventFd::new(EFD_NONBLOCK).context("making an event")?;
        let served = Arc::clone(&pmap);
        let stopped = stop.try_clone().context("copying an event")?;
        let server = std::thread::spawn(move || {
            served.serve_faults(&stopped).expect("a userfaultfd that works can be read until it is closed");
        });
        Ok(Self { pmap, stop, server: Some(server) })
    }

    /// Writes to the start of a page, as a guest would.
    pub(crate) fn write(&self, ppn: u64, value: u64) -> Result<()> {
        self.pmap.ram().write_obj(value, GuestAddress(ppn * PAGE_SIZE)).context("writing guest memory")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop.write(1).expect("an event that was never written can be");
        if let Some(server) = self.server.take() {
            // It has said what was wrong.
            server.join().ok();
        }
    }
}
