//! `PAGEMAP_SCAN`: whether the kernel reports the states of many pages at once.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `struct pm_scan_arg` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const ARG_SIZE: u64 = 96;
/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::Ioctl = 0xc060_6610;
const _: () = assert!(size_of::<ScanArg>() == 96, "the size is part of the ioctl's number");

/// Whether the kernel knows `PAGEMAP_SCAN` (Linux 6.7).
pub(crate) fn scan_works() -> bool {
    let Ok(pagemap) = File::open("/proc/self/pagemap") else { return false };
    // A scan of nothing.
    let mut arg = ScanArg { size: ARG_SIZE, ..ScanArg::default() };
    // SAFETY: the kernel reads and writes one `pm_scan_arg`, whose layout is its own and which
    // lives through the call.
    let done = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut arg) };
    // Any other error means that the request is known.
    done >= 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOTTY)
}
