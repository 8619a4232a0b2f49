//! Where VMs of a stage swap to.

use anyhow::{Context, Result};
use plimsoll_units::Bytes;
use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

use crate::operate::in_lab;

/// A directory for VMs' swap files. In the lab it is a file system of its own, so that all that is free in it is known.
pub(crate) struct SwapSpace {
    directory: TempDir,
    mounted: bool,
}

impl SwapSpace {
    /// Room for `size`.
    pub(crate) fn new(size: Bytes) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("plimsoll-swap-").tempdir()?;
        let mounted = in_lab();
        if mounted {
            let options = std::ffi::CString::new(format!("size={}", size.0))?;
            rustix::mount::mount("swap", directory.path(), "tmpfs", MountFlags::empty(), options.as_c_str())
                .context("mounting a file system to swap to")?;
        }
        Ok(Self { directory, mounted })
    }

    /// The daemon's configuration for it.
    pub(crate) fn setting(&self) -> String {
        format!("swap_directory = {:?}\n", self.directory.path().display().to_string())
    }

    /// What is free in it; `None` where others use the same file system.
    pub(crate) fn free(&self) -> Result<Option<Bytes>> {
        let free =
            || rustix::fs::statvfs(self.directory.path()).map(|stat| Bytes(stat.f_bavail * stat.f_frsize));
        self.mounted.then(free).transpose().context("asking what is free to swap to")
    }
}

impl Drop for SwapSpace {
    fn drop(&mut self) {
        if self.mounted {
            // Files may still be open in it: it goes with the last of them.
            rustix::mount::unmount(self.directory.path(), UnmountFlags::DETACH).ok();
        }
    }
}
