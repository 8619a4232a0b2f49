//! A member's window: the memory in which it shows pages that it offers.
//!
//! The member writes it, and this side reads it as a file. It is never mapped here, so a member can
//! only spoil what it shows. Its size is sealed, so its length does not change either.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use plimsoll_units::PAGE_SIZE;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use crate::pool::Page;

/// The daemon's side of a window.
#[derive(Debug)]
pub struct Window {
    file: File,
    pages: usize,
}

impl Window {
    /// Makes a window of `pages` pages of zeros.
    ///
    /// # Errors
    /// The kernel's: too many files are open, or memory is short.
    pub fn new(pages: usize) -> io::Result<Self> {
        let file = memfd_create("plimsoll-window", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, pages as u64 * PAGE_SIZE)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Self { file: file.into(), pages })
    }

    /// A descriptor for the member.
    ///
    /// # Errors
    /// Too many files are open.
    pub fn for_member(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// The pages that the member shows.
    pub fn shown(&self) -> Shown<'_> {
        Shown { window: self, from: 0, copied: 0, pages: [[0; 4096]; AT_ONCE] }
    }
}

/// Pages read in one system call: for single ones it costs as much as the copying.
const AT_ONCE: usize = 8;

/// A member's pages. Each is copied when it or one shortly before it is asked for, so later writes
/// of the member change nothing.
#[derive(Debug)]
pub struct Shown<'a> {
    window: &'a Window,
    /// Which pages were copied last.
    from: usize,
    copied: usize,
    pages: [Page; AT_ONCE],
}

impl Shown<'_> {
    /// Page `index` of the window; zeros beyond it.
    pub fn page(&mut self, index: usize) -> &Page {
        if !(self.from..self.from + self.copied).contains(&index) {
            let there = self.window.pages.saturating_sub(index).min(AT_ONCE);
            (self.from, self.copied) = (index, there);
            let pages = self.pages[..there].as_flattened_mut();
            if let Err(e) = self.window.file.read_exact_at(pages, index as u64 * PAGE_SIZE) {
                tracing::warn!("a window cannot be read: {e}");
                pages.fill(0);
            }
        }
        static ZEROS: Page = [0; 4096];
        if self.copied == 0 { &ZEROS } else { &self.pages[index - self.from] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_writes_it_and_cannot_change_its_size() {
        const PAGES: usize = 30;
        let window = Window::new(PAGES).unwrap();
        let theirs = File::from(window.for_member().unwrap());
        for (index, byte) in (0..PAGES as u64).zip(1..) {
            theirs.write_all_at(&[byte; 4096], index * PAGE_SIZE).unwrap();
        }
        let mut shown = window.shown();
        for index in [0, 1, 7, 8, 20, 21, PAGES - 1] {
            assert_eq!(shown.page(index), &[u8::try_from(index).unwrap() + 1; 4096]);
            theirs.write_all_at(&[255; 4096], index as u64 * PAGE_SIZE).unwrap();
            assert_ne!(shown.page(index), &[255; 4096], "it was copied");
        }
        assert_eq!(shown.page(PAGES), &[0; 4096]);
        assert_eq!(window.shown().page(PAGES + 9), &[0; 4096]);
        assert!(theirs.set_len(0).is_err() && theirs.set_len(1 << 30).is_err());
        assert!(fcntl_add_seals(&theirs, SealFlags::WRITE).is_err());
    }
}
