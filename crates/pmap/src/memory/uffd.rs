//! The kernel's userfaultfd: serving the page faults of a range of memory from user space.
//!
//! A module of our own, and not the `userfaultfd` crate: that one needs libclang to build and hides
//! which error an operation had. The ioctl numbers are asserted below against the kernel's ABI.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use plimsoll_sys::Event;
use plimsoll_units::PAGE_SIZE;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::UserfaultfdFlags;

use crate::address::{HostRange, MAX_RUN, PAGE};
use crate::error::Error;
use crate::memory::Wake;

/// A userfaultfd of this process, with the features that guest memory needs agreed upon with the
/// kernel.
#[derive(Debug)]
pub struct Uffd(OwnedFd);

/// What the kernel's userfaultfd can do, for `plimsoll doctor`.
///
/// Guest memory needs [`Features::write_protect`]; everything else here makes later mechanisms
/// cheaper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    bits: u64,
}

/// A page fault that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The host address of the page.
    pub(crate) address: u64,
    /// Whether the access was a write, to a missing page or to one that is write-protected.
    pub(crate) write: bool,
}

/// What is ready besides faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) stop: bool,
    pub(crate) other: bool,
    /// Nothing was for as long as it was waited for.
    pub(crate) late: bool,
}

/// What the guest may do with a page that is put in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read and write.
    Full,
    /// Read. A write asks first.
    ReadOnly,
}

impl Wake {
    /// As a mode of the calls that put pages in place.
    fn mode(self) -> u64 {
        match self {
            Self::Waiters => 0,
            Self::Nobody => COPY_DONTWAKE,
        }
    }
}

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    range: HostRange,
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

#[repr(C)]
struct WriteProtect {
    range: HostRange,
    mode: u64,
}

#[repr(C)]
struct Zeropage {
    range: HostRange,
    mode: u64,
    zeroed: i64,
}

const fn ioctl_number(direction: u32, number: u32, size: usize) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "sizes of the structures above")]
    let size = size as u32;
    (direction << 30) | (size << 16) | (0xAA << 8) | number
}
const READ: u32 = 2;
const READ_WRITE: u32 = 3;

/// Makes a userfaultfd, on `/dev/userfaultfd`.
const IOC_NEW: u32 = ioctl_number(0, 0x00, 0);
const IOC_API: u32 = ioctl_number(READ_WRITE, 0x3F, size_of::<Api>());
const IOC_REGISTER: u32 = ioctl_number(READ_WRITE, 0x00, size_of::<Register>());
const IOC_UNREGISTER: u32 = ioctl_number(READ, 0x01, size_of::<HostRange>());
const IOC_WAKE: u32 = ioctl_number(READ, 0x02, size_of::<HostRange>());
const IOC_COPY: u32 = ioctl_number(READ_WRITE, 0x03, size_of::<Copy>());
const IOC_ZEROPAGE: u32 = ioctl_number(READ_WRITE, 0x04, size_of::<Zeropage>());
const IOC_WRITEPROTECT: u32 = ioctl_number(READ_WRITE, 0x06, size_of::<WriteProtect>());

// The kernel's ABI, include/uapi/linux/userfaultfd.h.
const _: () = assert!(IOC_NEW == 0xAA00);
const _: () = assert!(IOC_API == 0xC018_AA3F);
const _: () = assert!(IOC_REGISTER == 0xC020_AA00);
const _: () = assert!(IOC_UNREGISTER == 0x8010_AA01);
const _: () = assert!(IOC_WAKE == 0x8010_AA02);
const _: () = assert!(IOC_COPY == 0xC028_AA03);
const _: () = assert!(IOC_ZEROPAGE == 0xC020_AA04);
const _: () = assert!(IOC_WRITEPROTECT == 0xC018_AA06);

/// The ioctls used once guest memory is made: what a seccomp filter must let through on the
/// userfaultfd.
pub const IOCTLS: [u32; 6] =
    [IOC_REGISTER, IOC_UNREGISTER, IOC_WAKE, IOC_COPY, IOC_ZEROPAGE, IOC_WRITEPROTECT];

const API_VERSION: u64 = 0xAA;
const REGISTER_MISSING: u64 = 1 << 0;
const REGISTER_WP: u64 = 1 << 1;
const COPY_DONTWAKE: u64 = 1 << 0;
const COPY_WP: u64 = 1 << 1;
const WRITEPROTECT_WP: u64 = 1 << 0;
const FEATURE_WP: u64 = 1 << 0;
const EVENT_PAGEFAULT: u8 = 0x12;
const PAGEFAULT_WRITE: u64 = 1 << 0;

/// `struct uffd_msg`: event at 0, flags at 8, address at 16.
const MESSAGE_SIZE: usize = 32;
/// Messages taken by one read. A guest has few vCPUs and each waits for one fault; more per read
/// only delays the first of them.
const MESSAGES: usize = 16;

/// What new pages are copied from. The kernel copies from it, so it must be readable memory of this
/// process.
#[repr(align(4096))]
struct Zeros([u8; PAGE * MAX_RUN as usize]);
static ZEROS: Zeros = Zeros([0; PAGE * MAX_RUN as usize]);

impl Uffd {
    /// Makes a userfaultfd from an open `/dev/userfaultfd`.
    ///
    /// The right to open that device is all the privilege needed, so a privileged process can open
    /// it and pass it on. This call must be made in the process whose memory is to be served.
    ///
    /// # Errors
    /// [`Error::Uffd`] where `device` is something else, or the kernel lacks write protection
    /// (before 5.7).
    pub fn from_device(device: BorrowedFd<'_>) -> Result<Self, Error> {
        let (uffd, _) = handshake(new_from_device(device)?, FEATURE_WP)?;
        Ok(uffd)
    }

    /// Makes a userfaultfd by the system call, which needs CAP_SYS_PTRACE or
    /// `vm.unprivileged_userfaultfd` set to 1.
    ///
    /// # Errors
    /// [`Error::Uffd`] without that right, or where the kernel lacks write protection (before 5.7).
    pub fn from_syscall() -> Result<Self, Error> {
        let (uffd, _) = handshake(new_from_syscall()?, FEATURE_WP)?;
        Ok(uffd)
    }

    /// Makes a userfaultfd in whichever way this process may: the device, then the system call.
    ///
    /// # Errors
    /// [`Error::Uffd`] of the system call, where both are refused.
    pub fn open() -> Result<Self, Error> {
        let Ok(device) = std::fs::File::open("/dev/userfaultfd") else { return Self::from_syscall() };
        Self::from_device(device.as_fd())
    }

    /// Makes touches of missing pages in `range` send faults, and allows write protection there.
    pub(crate) fn arm(&self, range: HostRange) -> io::Result<()> {
        let mut arg = Register { range, mode: REGISTER_MISSING | REGISTER_WP, ioctls: 0 };
        self.ioctl(IOC_REGISTER, &mut arg)
    }

    /// Has the kernel serve `range` by itself, and wakes the threads that wait for its pages.
    pub(crate) fn disarm(&self, mut range: HostRange) -> io::Result<()> {
        self.ioctl(IOC_UNREGISTER, &mut range)
    }

    /// Lets the threads that wait for a page of `range` try again.
    pub(crate) fn wake(&self, mut range: HostRange) -> io::Result<()> {
        self.ioctl(IOC_WAKE, &mut range)
    }

    /// Puts up to `pages` pages of zeros, at most [`MAX_RUN`], private and writable, at the missing
    /// pages from `address` on, and wakes the threads that wait for them if `wake` says so. Returns
    /// how many it put there, at least one. They must lie in one mapping.
    pub(crate) fn fill(&self, address: u64, pages: u16, wake: Wake) -> io::Result<u16> {
        let pages = pages.min(MAX_RUN);
        let src = std::ptr::from_ref(&ZEROS.0) as u64;
        let (len, mode) = (u64::from(pages) * PAGE_SIZE, wake.mode());
        let mut arg = Copy { dst: address, src, len, mode, copied: 0 };
        match self.ioctl(IOC_COPY, &mut arg) {
            Ok(()) => Ok(pages),
            // It was stopped on the way.
            Err(error) => match u64::try_from(arg.copied).map(|copied| copied / PAGE_SIZE) {
                Ok(copied @ 1..) => Ok(u16::try_from(copied).unwrap_or(pages).min(pages)),
                _ => Err(error),
            },
        }
    }

    /// Puts a private copy of `content` at the missing page `address`, and wakes the threads that
    /// wait for it if `wake` says so.
    pub(crate) fn put(
        &self,
        address: u64,
        content: &[u8; PAGE],
        access: Access,
        wake: Wake,
    ) -> io::Result<()> {
        let mode = wake.mode() | if access == Access::ReadOnly { COPY_WP } else { 0 };
        let src = std::ptr::from_ref(content) as u64;
        let mut arg = Copy { dst: address, src, len: PAGE_SIZE, mode, copied: 0 };
        self.ioctl(IOC_COPY, &mut arg)
    }

    /// Makes writes to present pages of `range` send faults. When this returns no processor can
    /// write there without having asked.
    pub(crate) fn protect(&self, range: HostRange) -> io::Result<()> {
        self.write_protect(range, WRITEPROTECT_WP)
    }

    /// Lets writes to `range` pass again, and wakes the threads that wait to write there.
    pub(crate) fn unprotect(&self, range: HostRange) -> io::Result<()> {
        self.write_protect(range, 0)
    }

    /// Before Linux 6.3 the kernel does this within one mapping only, and finds none if a range is
    /// in several. Then it is done in halves.
    fn write_protect(&self, range: HostRange, mode: u64) -> io::Result<()> {
        match self.ioctl(IOC_WRITEPROTECT, &mut WriteProtect { range, mode }) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) && range.len > PAGE_SIZE => {
                let half = (range.len / PAGE_SIZE / 2) * PAGE_SIZE;
                self.write_protect(HostRange { start: range.start, len: half }, mode)?;
                self.write_protect(HostRange { start: range.start + half, len: range.len - half }, mode)
            }
            done => done,
        }
    }

    /// Maps the kernel's page of zeros at the missing page `address`, and wakes the threads that
    /// wait for it if `wake` says so. At the first write the kernel puts a private page there
    /// without asking.
    pub(crate) fn map_zero(&self, address: u64, wake: Wake) -> io::Result<()> {
        let range = HostRange { start: address, len: PAGE_SIZE };
        let mut arg = Zeropage { range, mode: wake.mode(), zeroed: 0 };
        self.ioctl(IOC_ZEROPAGE, &mut arg)
    }

    /// Waits until there are faults to read, `stop` is readable, or `other` is; for at most
    /// `limit`.
    pub(crate) fn wait(
        &self,
        stop: &Event,
        other: Option<BorrowedFd<'_>>,
        limit: Option<Duration>,
    ) -> io::Result<Ready> {
        let stop = stop.as_fd();
        let other = other.unwrap_or(stop);
        let mut fds = [self.0.as_fd(), stop, other].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let late = match poll(&mut fds, limit.as_ref()) {
            Ok(ready) => ready == 0,
            Err(rustix::io::Errno::INTR) => false,
            Err(errno) => return Err(errno.into()),
        };
        if fds[0].revents().contains(PollFlags::ERR) {
            return Err(io::Error::other("the userfaultfd is in an error condition"));
        }
        Ok(Ready { stop: !fds[1].revents().is_empty(), other: !fds[2].revents().is_empty(), late })
    }

    /// Reads the faults that were sent, without blocking. There may be none.
    pub(crate) fn read(&self) -> io::Result<Vec<Fault>> {
        let mut buffer = [0; MESSAGE_SIZE * MESSAGES];
        match rustix::io::read(&self.0, &mut buffer) {
            Ok(len) => Ok(buffer[..len].chunks_exact(MESSAGE_SIZE).filter_map(parse).collect()),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn ioctl<T>(&self, number: u32, arg: &mut T) -> io::Result<()> {
        // SAFETY: `arg` is the structure that goes with `number` (the methods above pair them),
        // alive for the call. What the kernel does to the memory named in it is the meaning of each
        // method: it fills pages that were missing, which no reference can point to, or changes
        // whether faults are sent.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::Ioctl::from(number), arg) };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Features {
    /// Write faults can be caught (Linux 5.7). Guest memory cannot do without.
    pub fn write_protect(self) -> bool {
        self.has(0)
    }

    /// Pages can be moved without copying (UFFDIO_MOVE, Linux 6.8).
    pub fn move_pages(self) -> bool {
        self.has(16)
    }

    /// Written pages can be found without faults (WP_ASYNC and with it PAGEMAP_SCAN, Linux 6.7).
    pub fn write_protect_async(self) -> bool {
        self.has(15)
    }

    /// Missing page-table entries can be write-protected too (WP_UNPOPULATED, Linux 6.4).
    pub fn write_protect_unpopulated(self) -> bool {
        self.has(13)
    }

    fn has(self, bit: u32) -> bool {
        self.bits & (1 << bit) != 0
    }
}

/// Asks the kernel what its userfaultfd can do, through `device` (an open `/dev/userfaultfd`) or
/// the system call.
///
/// # Errors
/// [`Error::Uffd`] where a userfaultfd cannot be had that way.
pub fn probe(device: Option<BorrowedFd<'_>>) -> Result<Features, Error> {
    let fd = match device {
        Some(device) => new_from_device(device)?,
        None => new_from_syscall()?,
    };
    handshake(fd, 0).map(|(_, features)| features)
}

fn new_from_device(device: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: USERFAULTFD_IOC_NEW takes its flags by value and touches no memory.
    let fd = unsafe { libc::ioctl(device.as_raw_fd(), libc::Ioctl::from(IOC_NEW), flags) };
    if fd == -1 {
        let action = "make one from the device passed as /dev/userfaultfd";
        return Err(Error::Uffd { action, source: io::Error::last_os_error() });
    }
    // SAFETY: the kernel just made this descriptor, and nothing else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn new_from_syscall() -> Result<OwnedFd, Error> {
    // SAFETY: the system call touches no memory; what the descriptor is used for is up to `Uffd`.
    let made = unsafe { rustix::mm::userfaultfd(UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK) };
    let action = "make one: open /dev/userfaultfd to this user, or set vm.unprivileged_userfaultfd to 1";
    made.map_err(|errno| Error::Uffd { action, source: errno.into() })
}

/// Agrees on `features` with the kernel and learns what else it has. Possible once for each
/// descriptor.
fn handshake(fd: OwnedFd, features: u64) -> Result<(Uffd, Features), Error> {
    let uffd = Uffd(fd);
    let mut api = Api { api: API_VERSION, features, ioctls: 0 };
    let action = "agree on its features: guest memory needs write protection, Linux 5.7 or newer";
    uffd.ioctl(IOC_API, &mut api).map_err(|source| Error::Uffd { action, source })?;
    Ok((uffd, Features { bits: api.features }))
}

/// The fault in one message, or `None` for an event that was not asked for.
fn parse(message: &[u8]) -> Option<Fault> {
    let word = |at: usize| Some(u64::from_ne_bytes(message.get(at..at + 8)?.try_into().ok()?));
    if message.first() != Some(&EVENT_PAGEFAULT) {
        return None;
    }
    Some(Fault { address: word(16)? & !(PAGE_SIZE - 1), write: word(8)? & PAGEFAULT_WRITE != 0 })
}
