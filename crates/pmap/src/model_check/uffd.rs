//! What `uffd.rs` is in production, on the model's kernel.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use plimsoll_sys::Event;
use shuttle::rand::{Rng, thread_rng};

use crate::address::{HostRange, PAGE};
use crate::memory::Wake;
use crate::model_check::kernel::kernel;

/// The model's userfaultfd.
#[derive(Debug)]
pub struct Uffd;

/// A page fault that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) address: u64,
    pub(crate) write: bool,
}

/// What else is to be done than to read faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) stop: bool,
    pub(crate) other: bool,
    pub(crate) late: bool,
}

/// What a page that is put in place lets the guest do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Full,
    ReadOnly,
}

impl Uffd {
    pub(crate) fn arm(&self, range: HostRange) -> io::Result<()> {
        kernel().register(range);
        Ok(())
    }

    pub(crate) fn disarm(&self, range: HostRange) -> io::Result<()> {
        kernel().unregister(range);
        Ok(())
    }

    pub(crate) fn wake(&self, range: HostRange) -> io::Result<()> {
        kernel().wake(range);
        Ok(())
    }

    pub(crate) fn fill(&self, address: u64, pages: u16, wake: Wake) -> io::Result<u16> {
        // The kernel may stop on the way.
        let pages = thread_rng().gen_range(1..=pages);
        for page in 0..u64::from(pages) {
            self.put(address + page * PAGE as u64, &[0; PAGE], Access::Full, wake)?;
        }
        Ok(pages)
    }

    pub(crate) fn put(
        &self,
        address: u64,
        content: &[u8; PAGE],
        access: Access,
        wake: Wake,
    ) -> io::Result<()> {
        kernel().provide(address, Some(content), access == Access::ReadOnly, wake == Wake::Waiters)
    }

    pub(crate) fn protect(&self, range: HostRange) -> io::Result<()> {
        kernel().write_protect(range, true)
    }

    pub(crate) fn unprotect(&self, range: HostRange) -> io::Result<()> {
        kernel().write_protect(range, false)
    }

    pub(crate) fn map_zero(&self, address: u64, wake: Wake) -> io::Result<()> {
        kernel().provide(address, None, false, wake == Wake::Waiters)
    }

    pub(crate) fn wait(
        &self,
        _stop: &Event,
        _other: Option<BorrowedFd<'_>>,
        _limit: Option<Duration>,
    ) -> io::Result<Ready> {
        Ok(kernel().wait())
    }

    pub(crate) fn read(&self) -> io::Result<Vec<Fault>> {
        Ok(kernel().read())
    }
}
