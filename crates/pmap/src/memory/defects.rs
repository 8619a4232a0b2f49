//! The kernel's interfaces with deliberate defects: what `kernel.rs` is in production.

use std::io;
use std::ops::Deref;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use plimsoll_units::{FrameNo, PAGE_SIZE};

use super::kernel;
use super::mmap::{FrameView, Mapping};
use super::pagemap::Pagemap;
use super::uffd::{Access, Uffd};
use super::wake::Wake;
use crate::address::{CHUNK, HostRange, PAGE, PageSet};
use crate::mutation::Mutation;
use crate::sync::Arc;

/// A kernel that does its work, except for what the active defect says.
pub(crate) struct Kernel {
    kernel: kernel::Kernel,
    active: Mutex<Option<Mutation>>,
    /// Chunks that were to be armed, and are not yet: see [`Mutation::LateArming`].
    late: Mutex<Vec<HostRange>>,
    /// What the guest does right before the next whole chunk is armed.
    before_arming: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// The number of calls until one is refused.
    until_refusal: Mutex<Option<u32>>,
    /// The process has as many mappings as it may have.
    has_all_mappings: AtomicBool,
}

#[cfg_attr(feature = "model-check", expect(dead_code, reason = "the tests that use them are left out"))]
impl Kernel {
    /// Has the guest do something right before the next whole chunk is armed.
    pub(crate) fn before_arming(&self, act: impl FnOnce() + Send + 'static) {
        *self.before_arming.lock().unwrap() = Some(Box::new(act));
    }

    /// Has one call be refused after `calls` others, for want of memory: one that disarms,
    /// protects, unprotects or discards.
    pub(crate) fn refuse_after(&self, calls: u32) {
        *self.until_refusal.lock().unwrap() = Some(calls);
    }

    /// Whether the process has as many mappings as it may have from now on: no pages can be moved,
    /// and no chunk be disarmed.
    pub(crate) fn has_all_mappings(&self, has: bool) {
        self.has_all_mappings.store(has, Ordering::SeqCst);
    }

    /// Whether a call has been refused since [`Self::refuse_after`].
    pub(crate) fn has_refused(&self) -> bool {
        self.until_refusal.lock().unwrap().is_none()
    }
}

impl Kernel {
    pub(super) fn new(mapping: Arc<Mapping>, uffd: Uffd, pagemap: Pagemap) -> Self {
        let kernel = kernel::Kernel::new(mapping, uffd, pagemap);
        Self {
            kernel,
            active: Mutex::default(),
            late: Mutex::default(),
            before_arming: Mutex::default(),
            until_refusal: Mutex::default(),
            has_all_mappings: AtomicBool::default(),
        }
    }

    fn may_map(&self) -> io::Result<()> {
        if self.has_all_mappings.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        Ok(())
    }

    fn may_refuse(&self) -> io::Result<()> {
        let mut until = self.until_refusal.lock().unwrap();
        match *until {
            Some(0) => {
                *until = None;
                Err(io::Error::from_raw_os_error(libc::ENOMEM))
            }
            Some(calls) => {
                *until = Some(calls - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(crate) fn set(&self, mutation: Option<Mutation>) {
        *self.active.lock().unwrap() = mutation;
    }

    pub(crate) fn active(&self) -> Option<Mutation> {
        *self.active.lock().unwrap()
    }

    fn has(&self, mutation: Mutation) -> bool {
        self.active() == Some(mutation)
    }

    pub(super) fn arm(&self, range: HostRange) -> io::Result<()> {
        if range.len == CHUNK as u64
            && let Some(act) = self.before_arming.lock().unwrap().take()
        {
            act();
        }
        if self.has(Mutation::LateArming) && range.len == CHUNK as u64 {
            self.late.lock().unwrap().push(range);
            return Ok(());
        }
        self.kernel.arm(range)
    }

    /// Arms what was to be armed before something else than a discard is done to `range`.
    fn catch_up(&self, range: HostRange) -> io::Result<()> {
        let overlaps =
            |late: &HostRange| late.start < range.start + range.len && range.start < late.start + late.len;
        let late: Vec<_> = self.late.lock().unwrap().extract_if(.., |late| overlaps(late)).collect();
        late.into_iter().try_for_each(|range| self.kernel.arm(range))
    }

    fn bytes(&self, offset: usize, len: usize) -> HostRange {
        self.kernel.mapping.range(offset, len)
    }

    pub(super) fn disarm(&self, range: HostRange) -> io::Result<()> {
        self.catch_up(range)?;
        self.may_refuse()?;
        self.may_map()?;
        self.kernel.disarm(range)
    }

    pub(super) fn protect(&self, range: HostRange) -> io::Result<()> {
        self.catch_up(range)?;
        self.may_refuse()?;
        if self.has(Mutation::NoProtection) { Ok(()) } else { self.kernel.protect(range) }
    }

    pub(super) fn unprotect(&self, range: HostRange) -> io::Result<()> {
        self.catch_up(range)?;
        self.may_refuse()?;
        self.kernel.unprotect(range)
    }

    fn wakes(&self, wake: Wake) -> Wake {
        if self.has(Mutation::NoWake) { Wake::Nobody } else { wake }
    }

    pub(super) fn fill(&self, address: u64, pages: u16, wake: Wake) -> io::Result<u16> {
        self.catch_up(HostRange { start: address, len: u64::from(pages) * PAGE_SIZE })?;
        self.kernel.fill(address, pages, self.wakes(wake))
    }

    pub(super) fn map_zero(&self, address: u64, wake: Wake) -> io::Result<()> {
        self.catch_up(page(address))?;
        self.kernel.map_zero(address, self.wakes(wake))
    }

    pub(super) fn put(
        &self,
        address: u64,
        content: &[u8; PAGE],
        access: Access,
        wake: Wake,
    ) -> io::Result<()> {
        self.catch_up(page(address))?;
        let access = if self.has(Mutation::StaleCopy) { Access::Full } else { access };
        self.kernel.put(address, content, access, self.wakes(wake))
    }

    pub(super) fn discard(&self, offset: usize, len: usize) -> io::Result<()> {
        self.may_refuse()?;
        let discarded = self.kernel.discard(offset, len);
        if self.has(Mutation::LateArming) {
            std::thread::yield_now();
        }
        self.catch_up(self.bytes(offset, len))?;
        discarded
    }

    pub(super) fn relocate(&self, from: usize, to: usize, len: usize) -> io::Result<()> {
        self.catch_up(self.bytes(from, len))?;
        self.catch_up(self.bytes(to, len))?;
        self.may_map()?;
        let mapping = &self.kernel.mapping;
        if self.has(Mutation::NoRehoming) && from == mapping.staging() && len < CHUNK {
            return Ok(());
        }
        let aside = mapping.len() <= from && from < mapping.blank();
        if self.has(Mutation::StrandedAside) && aside && len == CHUNK {
            return self.kernel.disarm(self.bytes(to, len));
        }
        self.kernel.relocate(from, to, len)
    }

    pub(super) fn equals(&self, offset: usize, view: &FrameView, frame: FrameNo) -> bool {
        self.has(Mutation::BlindSharing) || self.kernel.equals(offset, view, frame)
    }

    pub(super) fn copy_frame(&self, offset: usize) {
        if !self.has(Mutation::EarlyDeparture) {
            self.kernel.copy_frame(offset);
        }
    }

    pub(super) fn backed(&self, start: u64) -> io::Result<PageSet> {
        self.catch_up(HostRange { start, len: CHUNK as u64 })?;
        self.kernel.backed(start)
    }

    pub(super) fn own(&self, start: u64, pages: &PageSet) -> io::Result<PageSet> {
        let own = self.kernel.own(start, pages)?;
        Ok(if self.has(Mutation::UnseenWrite) { PageSet::EMPTY } else { own })
    }
}

fn page(address: u64) -> HostRange {
    HostRange { start: address, len: PAGE as u64 }
}

/// What has no defect.
impl Deref for Kernel {
    type Target = kernel::Kernel;

    fn deref(&self) -> &Self::Target {
        &self.kernel
    }
}
