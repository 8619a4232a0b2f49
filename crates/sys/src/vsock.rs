//! A guest's stream sockets of the family `AF_VSOCK`, which the standard library does not know.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The host's context identifier.
pub const HOST: u32 = libc::VMADDR_CID_HOST;
/// Connections that may wait to be accepted.
const BACKLOG: libc::c_int = 128;

/// Listens at `port`, for the host and programs of this guest.
///
/// # Errors
/// The kernel's: it has no vsock, the port is taken, or is below 1024 and the caller is not root.
pub fn listen(port: u32) -> io::Result<OwnedFd> {
    let socket = socket()?;
    let address = address(libc::VMADDR_CID_ANY, port);
    // SAFETY: the address lives for the call, which reads as many bytes of it as it has.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length()) })?;
    // SAFETY: listen takes integers only.
    check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    Ok(socket)
}

/// Waits for the next connection. Returns its socket and the context identifier of its other end.
///
/// # Errors
/// The kernel's.
pub fn accept(listener: &OwnedFd) -> io::Result<(OwnedFd, u32)> {
    let mut other = address(libc::VMADDR_CID_ANY, 0);
    let mut length = length();
    // SAFETY: address and length live for the call, which writes at most `length` bytes to the
    // first, of which any are a valid address.
    let socket = unsafe {
        libc::accept4(listener.as_raw_fd(), (&raw mut other).cast(), &raw mut length, libc::SOCK_CLOEXEC)
    };
    Ok((own(socket)?, other.svm_cid))
}

/// Connects to `port` of the context `cid`.
///
/// # Errors
/// The kernel's: nobody listens there, or does not answer.
pub fn connect(cid: u32, port: u32) -> io::Result<OwnedFd> {
    let socket = socket()?;
    let address = address(cid, port);
    // SAFETY: the address lives for the call, which reads as many bytes of it as it has.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length()) })?;
    Ok(socket)
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: socket takes integers only.
    own(unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })
}

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: a sockaddr_vm is plain data, for which zeros are a value.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::sa_family_t::try_from(libc::AF_VSOCK).expect("the family is a small number");
    (address.svm_cid, address.svm_port) = (cid, port);
    address
}

fn length() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<libc::sockaddr_vm>()).expect("an address is short")
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn own(fd: libc::c_int) -> io::Result<OwnedFd> {
    check(fd)?;
    // SAFETY: the kernel has just made it, and nothing else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_laid_out_as_the_kernel_has_it() {
        assert_eq!(length(), 16);
        let address = address(7, 1024);
        assert_eq!((address.svm_family, address.svm_cid, address.svm_port), (40, 7, 1024));
    }
}
