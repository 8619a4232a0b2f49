//! What `uffd.rs` is in production, on the model's kernel.

use std::io;

use vmm_sys_util::eventfd::EventFd;

use crate::host_range::HostRange;
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

    pub(crate) fn fill(&self, address: u64, wake: bool) -> io::Result<()> {
        kernel().provide(address, Some(&[0; 4096]), false, wake)
    }

    pub(crate) fn map_zero(&self, address: u64, wake: bool) -> io::Result<()> {
        kernel().provide(address, None, false, wake)
    }

    pub(crate) fn wait(&self, _stop: &EventFd) -> io::Result<bool> {
        Ok(kernel().wait())
    }

    pub(crate) fn read(&self) -> io::Result<Vec<Fault>> {
        Ok(kernel().read())
    }
}
