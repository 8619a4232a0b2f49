//! What guests' memory holds, read from outside: the measure of what they could share that owes
//! nothing to Plimsoll's scanner.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use plimsoll_operate::smaps::guest_memory;
use plimsoll_units::{Bytes, DigestKey, PAGE_SIZE, PageDigest, Pages};

/// A page of `/proc/PID/pagemap` that is in memory.
const PRESENT: u64 = 1 << 63;

/// What digests are made with. No secret: they do not leave this program.
const KEY: DigestKey = DigestKey::new([0; DigestKey::LEN]);

/// Pages of guests that stand still.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// Pages that are there.
    pages: u64,
    /// What they hold, except for zeros.
    different: HashSet<PageDigest>,
}

impl Content {
    /// Adds what a guest with `size` of memory has, whose VMM is process `pid`. It must stand
    /// still.
    pub(crate) fn add(&mut self, pid: u32, size: Bytes) -> Result<()> {
        let open = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            File::open(&path).with_context(|| format!("opening {path}"))
        };
        let (pagemap, memory) = (open("pagemap")?, open("mem")?);
        let mut page = [0; 4096];
        for (range, frames) in guest_memory(pid, size)? {
            for address in range.step_by(4096) {
                let mut entry = [0; 8];
                pagemap.read_exact_at(&mut entry, address / PAGE_SIZE * 8).context("reading a page map")?;
                // A frame is there though the process has not come to it.
                if !frames && u64::from_ne_bytes(entry) & PRESENT == 0 {
                    continue;
                }
                match memory.read_exact_at(&mut page, address) {
                    // Faults of a process that stands still are not served.
                    Err(error) if error.raw_os_error() == Some(libc::EIO) => continue,
                    outcome => outcome.context("reading guest memory")?,
                }
                self.take(&page);
            }
        }
        Ok(())
    }

    fn take(&mut self, page: &[u8; 4096]) {
        self.pages += 1;
        if *page != [0; 4096] {
            self.different.insert(KEY.digest(page));
        }
    }

    /// Pages that could go if each content were there once, and zeros not at all.
    pub(crate) fn mergeable(&self) -> Pages {
        Pages(self.pages - self.different.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_again_and_zeros_could_go() {
        let mut content = Content::default();
        [0, 1, 2, 1, 0, 1].iter().for_each(|&byte| content.take(&[byte; 4096]));
        assert_eq!(content.mergeable(), Pages(4));
    }
}
