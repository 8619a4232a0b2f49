//! `swapon` and `swapoff`: the kernel's own swapping, to compare with.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use plimsoll_units::PAGE_SIZE;

/// A file that the kernel swaps to until this is dropped.
#[derive(Debug)]
pub(crate) struct KernelSwap {
    path: PathBuf,
    on: bool,
}

impl KernelSwap {
    /// Makes a file of `pages` pages in `directory` and has the kernel swap to it.
    ///
    /// Where there is swap space already the kernel might use that, and would be measured on another disk: then this fails.
    pub(crate) fn new(directory: &Path, pages: u32) -> Result<Self> {
        let others = fs::read_to_string("/proc/swaps").context("reading /proc/swaps")?;
        ensure!(others.lines().count() <= 1, "this machine swaps already, to elsewhere");
        let path = directory.join(format!("bench-swap-{}", std::process::id()));
        let mut swap = Self { path, on: false };
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&swap.path);
        let file = made.with_context(|| format!("making {}", swap.path.display()))?;
        format(&file, pages).with_context(|| format!("writing {}", swap.path.display()))?;
        let name = swap.name()?;
        // SAFETY: swapon reads the name, which ends with a NUL, and changes nothing in this process.
        let result = unsafe { libc::swapon(name.as_ptr(), 0) };
        if result == -1 {
            return Err(io::Error::last_os_error()).context("the kernel does not let us use swapon");
        }
        swap.on = true;
        Ok(swap)
    }

    fn name(&self) -> Result<CString> {
        Ok(CString::new(self.path.as_os_str().as_bytes())?)
    }
}

impl Drop for KernelSwap {
    fn drop(&mut self) {
        if self.on
            && let Ok(name) = self.name()
        {
            // SAFETY: swapoff reads the name, which ends with a NUL; what was swapped out comes back.
            unsafe { libc::swapoff(name.as_ptr()) };
        }
        // Where it is still in use, somebody has to look after it anyway.
        fs::remove_file(&self.path).ok();
    }
}

/// Writes all of a swap file, without holes, and its header: version 1 (`union swap_header` in Linux).
fn format(file: &File, pages: u32) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let len = u64::from(pages) * PAGE_SIZE;
    let mut at = 0;
    while at < len {
        let part = zeros.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
        file.write_all_at(&zeros[..part], at)?;
        at += part as u64;
    }
    let words = [1, pages - 1, 0];
    file.write_all_at(&words.map(u32::to_le_bytes).concat(), 1024)?;
    file.write_all_at(b"SWAPSPACE2", PAGE_SIZE - 10)?;
    file.sync_all()
}
