//! A host without io_uring.

use std::fs;

use anyhow::{Context, Result, ensure};
use plimsoll_operate::in_lab;

/// Has the kernel refuse io_uring to everybody, until this is dropped. A VMM then swaps with a
/// thread, and has its swap file open where others can reach it; otherwise only the kernel has it.
/// Linux 6.6 or newer.
pub(crate) struct NoIoUring(String);

const IO_URING_DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";

impl NoIoUring {
    /// Refuses it from now on. Only for a host that is ours alone.
    pub(crate) fn now() -> Result<Self> {
        ensure!(in_lab(), "io_uring is not taken from a machine that others use");
        let before = fs::read_to_string(IO_URING_DISABLED).context("asking whether there is io_uring")?;
        fs::write(IO_URING_DISABLED, "2").context("switching io_uring off")?;
        Ok(Self(before))
    }
}

impl Drop for NoIoUring {
    fn drop(&mut self) {
        // Without it everything works as well.
        fs::write(IO_URING_DISABLED, self.0.trim()).ok();
    }
}
