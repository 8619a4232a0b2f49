//! A VM's window: the memory in which it shows pages that it offers to share.
//!
//! The VMM writes it, and the daemon reads it as a file. It is never mapped here, so that nothing a VMM does to it
//! can do more than spoil what it shows; its size is sealed, so that not even the length changes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use plimsoll_protocol::sharing::WINDOW;
use plimsoll_units::PAGE_SIZE;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

/// The daemon's side of a window.
#[derive(Debug)]
pub(crate) struct Window(File);

impl Window {
    /// A window of zeros.
    ///
    /// # Errors
    /// The kernel's: too many files are open, or memory is short.
    pub(crate) fn new() -> io::Result<Self> {
        let file = memfd_create("plimsoll-window", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, WINDOW as u64 * PAGE_SIZE)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Self(file.into()))
    }

    /// A descriptor for the VMM.
    ///
    /// # Errors
    /// Too many files are open.
    pub(crate) fn for_vmm(&self) -> io::Result<OwnedFd> {
        self.0.as_fd().try_clone_to_owned()
    }

    /// Copies what the VMM shows as page `index` now. Beyond the window there are zeros.
    pub(crate) fn read(&self, index: usize, page: &mut [u8; 4096]) {
        if let Err(e) = self.0.read_exact_at(page, index as u64 * PAGE_SIZE) {
            tracing::warn!("a window cannot be read: {e}");
            page.fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vmm_writes_it_and_cannot_change_its_size() {
        let window = Window::new().unwrap();
        let theirs = File::from(window.for_vmm().unwrap());
        theirs.write_all_at(&[7; 4096], 4096).unwrap();
        let mut page = [0; 4096];
        window.read(1, &mut page);
        assert_eq!(page, [7; 4096]);
        window.read(WINDOW, &mut page);
        assert_eq!(page, [0; 4096]);
        assert!(theirs.set_len(0).is_err() && theirs.set_len(1 << 30).is_err());
        assert!(fcntl_add_seals(&theirs, SealFlags::WRITE).is_err());
    }
}
