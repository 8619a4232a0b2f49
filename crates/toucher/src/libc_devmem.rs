//! Physical memory of this machine from the kernel: `/dev/mem`, for an attacker that drives devices
//! by itself.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::ptr::{self, NonNull};

/// A range of physical addresses, mapped. A device may read and write it at the same time, so all
/// accesses are volatile.
pub(crate) struct Physical {
    at: NonNull<u8>,
    len: usize,
}

impl Physical {
    /// Maps memory that this machine's kernel does not use.
    pub(crate) fn memory(address: u64, len: usize) -> io::Result<Self> {
        Self::map(address, len, 0)
    }

    /// Maps the registers of a device.
    pub(crate) fn registers(address: u64, len: usize) -> io::Result<Self> {
        // No access may be kept in a cache.
        Self::map(address, len, libc::O_SYNC)
    }

    fn map(address: u64, len: usize, flags: i32) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/mem")?;
        let offset = i64::try_from(address).map_err(io::Error::other)?;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice overlays nothing of ours.
        let at =
            unsafe { libc::mmap(ptr::null_mut(), len, prot, libc::MAP_SHARED, file.as_raw_fd(), offset) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mmap gave address zero"))?;
        Ok(Self { at, len })
    }

    /// The length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Reads the four bytes at `offset`, a multiple of four.
    pub(crate) fn read(&self, offset: usize) -> u32 {
        // SAFETY: `place` has checked that the word lies in the mapping; any bits are a number.
        unsafe { self.place(offset, 4).cast::<u32>().read_volatile() }
    }

    /// Writes four bytes at `offset`, a multiple of four.
    pub(crate) fn write(&self, offset: usize, value: u32) {
        // SAFETY: as in `read`; nothing but devices and this program uses what is mapped.
        unsafe { self.place(offset, 4).cast::<u32>().write_volatile(value) };
    }

    /// Writes two bytes at `offset`, a multiple of two.
    pub(crate) fn write_half(&self, offset: usize, value: u16) {
        // SAFETY: as in `write`.
        unsafe { self.place(offset, 2).cast::<u16>().write_volatile(value) };
    }

    /// The address of `size` bytes at `offset`.
    fn place(&self, offset: usize, size: usize) -> *mut u8 {
        assert!(offset.is_multiple_of(size) && offset <= self.len - size, "{offset:#x} is not mapped");
        self.at.as_ptr().wrapping_add(offset)
    }
}

impl Drop for Physical {
    fn drop(&mut self) {
        // SAFETY: this is the whole mapping made in `map`, and nothing refers to it any more.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
    }
}
