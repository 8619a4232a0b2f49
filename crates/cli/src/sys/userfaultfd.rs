//! userfaultfd: which features the kernel offers through `/dev/userfaultfd`.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The device, which (unlike the system call) gives descriptors that also take faults of the kernel
/// itself.
pub(crate) const DEVICE: &str = "/dev/userfaultfd";

/// Pages can be write-protected (`UFFD_FEATURE_PAGEFAULT_FLAG_WP`, Linux 5.7).
pub(crate) const WRITE_PROTECT: u64 = 1 << 0;
/// Pages never touched can be write-protected too (`UFFD_FEATURE_WP_UNPOPULATED`, Linux 6.4).
pub(crate) const WP_UNPOPULATED: u64 = 1 << 13;
/// Writes to protected pages can be only noted (`UFFD_FEATURE_WP_ASYNC`, Linux 6.7).
pub(crate) const WP_ASYNC: u64 = 1 << 15;
/// Pages can be moved without a copy (`UFFD_FEATURE_MOVE`, Linux 6.8).
pub(crate) const MOVE: u64 = 1 << 16;

/// `struct uffdio_api` of linux/userfaultfd.h.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

const API: u64 = 0xaa;
/// `_IO(0xaa, 0)`.
const USERFAULTFD_IOC_NEW: libc::Ioctl = 0xaa00;
/// `_IOWR(0xaa, 0x3f, struct uffdio_api)`.
const UFFDIO_API: libc::Ioctl = 0xc018_aa3f;
const _: () = assert!(size_of::<Api>() == 0x18, "the size is part of the ioctl's number");

/// The features that the device offers, as bits of `UFFD_FEATURE_*`.
///
/// # Errors
/// The device cannot be opened, or gives no descriptor.
pub(crate) fn features() -> io::Result<u64> {
    let device = File::options().read(true).write(true).open(DEVICE)?;
    // SAFETY: the ioctl takes flags by value and touches no memory of ours; the descriptor is open.
    let fd = unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us and nothing else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut api = Api { api: API, features: 0, ioctls: 0 };
    // SAFETY: the ioctl reads and writes one `Api`, whose layout is the kernel's and which lives
    // through the call.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_API, &raw mut api) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(api.features) }
}
