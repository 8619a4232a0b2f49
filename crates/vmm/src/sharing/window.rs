use std::fs::File;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, ensure};
use plimsoll_protocol::sharing::WINDOW;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

const PAGE: usize = 4096;

/// The memory in which the VM shows the daemon the content of pages that it offers. The daemon
/// reads it once, and believes only what it has read.
pub(super) struct Window(MmapRegion);

impl Window {
    /// Maps the window.
    ///
    /// # Errors
    /// `fd` is not writable memory of at least [`WINDOW`] pages.
    pub(super) fn new(fd: OwnedFd) -> Result<Self> {
        let file = File::from(fd);
        let len = file.metadata().context("the window for pages that are offered")?.len();
        ensure!(len >= (WINDOW * PAGE) as u64, "the window for pages that are offered has {len} bytes");
        let mapped = MmapRegion::from_file(FileOffset::new(file, 0), WINDOW * PAGE);
        Ok(Self(mapped.context("the window for pages that are offered cannot be mapped")?))
    }

    /// Writes `pages` to the beginning of the window, as many as it has room for.
    pub(super) fn write(&self, pages: &[[u8; PAGE]]) {
        let whole = self.0.as_volatile_slice();
        for (at, page) in (0..WINDOW * PAGE).step_by(PAGE).zip(pages) {
            let slot = whole.subslice(at, PAGE).expect("a page of the window");
            slot.copy_from(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn what_is_written_is_what_the_other_side_reads() {
        let file = tempfile::tempfile().unwrap();
        file.set_len((WINDOW * PAGE) as u64).unwrap();
        let window = Window::new(file.try_clone().unwrap().into()).unwrap();
        let pages: Vec<_> = (0..=WINDOW).map(|n| [u8::try_from(n).unwrap() + 1; PAGE]).collect();
        window.write(&pages);
        for (n, page) in pages[..WINDOW].iter().enumerate() {
            let mut read = [0; PAGE];
            file.read_exact_at(&mut read, (n * PAGE) as u64).unwrap();
            assert_eq!(&read, page);
        }
    }

    #[test]
    fn a_window_that_is_too_small_is_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len((WINDOW * PAGE) as u64 - 1).unwrap();
        assert!(Window::new(file.into()).is_err());
    }
}
