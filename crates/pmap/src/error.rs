use std::io;

use plimsoll_units::{Bytes, Pages, Ppn};

/// What can go wrong with guest memory. No guest input leads here except through
/// [`Error::OutsideRam`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The regions given for guest RAM cannot be laid out.
    #[error("guest RAM region {index} (page {start:?}, {pages:?}): {problem}")]
    Layout {
        /// Which region of the list, counting from 0.
        index: usize,
        /// Its first page.
        start: Ppn,
        /// Its length.
        pages: Pages,
        /// What is wrong and what would be right.
        problem: &'static str,
    },
    /// No region was given.
    #[error("a VM needs at least one region of RAM")]
    NoRam,
    /// The address space for guest RAM could not be had.
    #[error("cannot map {size} of address space for guest RAM: check the address space limit (ulimit -v)")]
    Map {
        /// Guest RAM, all regions together.
        size: Bytes,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A userfaultfd operation failed.
    #[error("userfaultfd: cannot {action}")]
    Uffd {
        /// What was tried, on what.
        action: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// `/proc/self/pagemap` cannot be opened or read.
    #[error("cannot read /proc/self/pagemap: /proc must be mounted when the VM's memory is made")]
    Pagemap {
        /// The kernel's reason.
        source: io::Error,
    },
    /// Guest memory that was put aside could not be brought back.
    #[error("cannot bring back guest memory that was put aside for sampling: raise vm.max_map_count")]
    Aside {
        /// The kernel's reason.
        source: io::Error,
    },
    /// Guest memory could not be given back.
    #[error("cannot discard guest memory")]
    Discard {
        /// The kernel's reason.
        source: io::Error,
    },
    /// The swap space cannot be used.
    #[error("cannot set up swapping to the file that was given for it")]
    Swap {
        /// The kernel's reason.
        source: io::Error,
    },
    /// A page could not be read from the swap: its content is lost, and the VM must not go on.
    #[error("guest page {ppn:?} cannot be read from the swap")]
    SwapRead {
        /// The page.
        ppn: Ppn,
        /// The device's reason.
        source: io::Error,
    },
    /// Pages could not be written to the swap. They are kept in memory; nothing is lost, and
    /// nothing more is swapped out.
    #[error("cannot write to the swap: no more pages are swapped out")]
    SwapWrite {
        /// The device's reason.
        source: io::Error,
    },
    /// A range of guest-physical addresses is not, or not wholly, RAM.
    #[error("guest address {address:#x}, {length} bytes, is not wholly in guest RAM")]
    OutsideRam {
        /// The first byte of the range.
        address: u64,
        /// Its length in bytes.
        length: u64,
    },
    /// Guest memory cannot be reset while devices read or write it.
    #[error("{chunks} chunks of guest memory have device I/O in flight: wait for it to end, then reset")]
    IoInFlight {
        /// How many chunks of 2 MiB have pinned pages.
        chunks: usize,
    },
}
