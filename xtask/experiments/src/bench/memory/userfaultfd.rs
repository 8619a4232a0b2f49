//! The kernel's userfaultfd, as much of it as the shortest round trip of a page fault needs.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use plimsoll_pmap::uffd::Uffd;
use plimsoll_units::PAGE_SIZE;

use super::buffer::PageBuffer;
use super::plain::Plain;

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

// The kernel's ABI, include/uapi/linux/userfaultfd.h.
const IOC_REGISTER: u32 = 0xC020_AA00;
const IOC_COPY: u32 = 0xC028_AA03;
const _: () = assert!(size_of::<Register>() == 0x20 && size_of::<Copy>() == 0x28);
const REGISTER_MISSING: u64 = 1;
const EVENT_PAGEFAULT: u8 = 0x12;
const MESSAGE_SIZE: usize = 32;

/// From now on a missing page of `memory` asks.
pub(super) fn register(uffd: &Uffd, memory: &Plain) -> io::Result<()> {
    let mut arg =
        Register { start: memory.address(), len: memory.len() as u64, mode: REGISTER_MISSING, ioctls: 0 };
    ioctl(uffd, IOC_REGISTER, &mut arg)
}

/// Puts `page` at the missing page at `offset` of `memory`, and wakes the threads that wait for it.
pub(super) fn copy(uffd: &Uffd, memory: &Plain, offset: usize, page: &PageBuffer) -> io::Result<()> {
    let src = page.0.as_ptr() as u64;
    let dst = memory.address() + offset as u64;
    ioctl(uffd, IOC_COPY, &mut Copy { dst, src, len: PAGE_SIZE, mode: 0, copied: 0 })
}

/// The address of the next page that a thread waits for, if there is one.
pub(super) fn next_fault(uffd: &Uffd) -> io::Result<Option<u64>> {
    let mut message = [0; MESSAGE_SIZE];
    match rustix::io::read(uffd.as_fd(), &mut message) {
        Ok(_) if message[0] == EVENT_PAGEFAULT => {
            let address = message[16..24].try_into().map_or(0, u64::from_ne_bytes);
            Ok(Some(address & !(PAGE_SIZE - 1)))
        }
        Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn ioctl<T>(uffd: &Uffd, number: u32, arg: &mut T) -> io::Result<()> {
    // SAFETY: `arg` is the structure that goes with `number`, alive for the call. The kernel only
    // fills pages that are missing in memory to which no reference points.
    let result = unsafe { libc::ioctl(uffd.as_fd().as_raw_fd(), libc::Ioctl::from(number), arg) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
