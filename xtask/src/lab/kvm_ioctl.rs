//! One ioctl of `/dev/kvm`.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `KVM_CREATE_VM` of linux/kvm.h.
const KVM_CREATE_VM: libc::c_ulong = 0xae01;

/// Makes a VM with neither memory nor processors. It exists as long as the returned descriptor.
pub(super) fn create_vm() -> io::Result<OwnedFd> {
    let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
    // SAFETY: the descriptor is open; the ioctl takes an integer and returns a descriptor.
    let vm = unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_CREATE_VM, 0) };
    if vm < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is fresh and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(vm) })
}
