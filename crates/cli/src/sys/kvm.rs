//! KVM: whether `/dev/kvm` makes virtual machines.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub(crate) const DEVICE: &str = "/dev/kvm";

/// `_IO(KVMIO, ...)` with KVMIO 0xae, of linux/kvm.h.
const KVM_GET_API_VERSION: libc::Ioctl = 0xae00;
const KVM_CREATE_VM: libc::Ioctl = 0xae01;
const KVM_CHECK_EXTENSION: libc::Ioctl = 0xae03;
/// The only version there has been since 2007.
const API_VERSION: i32 = 12;

/// What the VMM asks of KVM, with its number in linux/kvm.h.
const CAPABILITIES: [(&str, libc::c_ulong); 6] = [
    ("IRQCHIP", 0),
    ("USER_MEMORY", 3),
    ("SET_TSS_ADDR", 4),
    ("SYNC_MMU", 16),
    ("IRQFD", 32),
    ("IOEVENTFD", 36),
];

/// What KVM said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A virtual machine was made (and is gone again).
    Works,
    /// It speaks another version of its interface.
    Version(i32),
    /// It lacks these capabilities.
    Lacks(Vec<&'static str>),
    /// It makes no virtual machine.
    Refuses(String),
}

/// Asks KVM whether it makes virtual machines.
///
/// # Errors
/// The device cannot be opened.
pub(crate) fn ask() -> io::Result<Answer> {
    let device = File::options().read(true).write(true).open(DEVICE)?;
    let version = ask_number(&device, KVM_GET_API_VERSION, 0);
    if version != API_VERSION {
        return Ok(Answer::Version(version));
    }
    let lacking = CAPABILITIES.iter().filter(|(_, cap)| ask_number(&device, KVM_CHECK_EXTENSION, *cap) <= 0);
    let lacking: Vec<&'static str> = lacking.map(|(name, _)| *name).collect();
    if !lacking.is_empty() {
        return Ok(Answer::Lacks(lacking));
    }
    let vm = ask_number(&device, KVM_CREATE_VM, 0);
    if vm < 0 {
        return Ok(Answer::Refuses(io::Error::last_os_error().to_string()));
    }
    // SAFETY: the kernel just made this descriptor for us and nothing else owns it.
    drop(unsafe { OwnedFd::from_raw_fd(vm) });
    Ok(Answer::Works)
}

/// One of KVM's ioctls that take a number and give one.
fn ask_number(device: &File, request: libc::Ioctl, argument: libc::c_ulong) -> i32 {
    // SAFETY: these requests take their argument by value and touch no memory of ours; the
    // descriptor is open.
    unsafe { libc::ioctl(device.as_raw_fd(), request, argument) }
}
