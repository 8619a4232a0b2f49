use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use plimsoll_protocol::wire::Wire;
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::paths::CONTROL_SOCKET;

/// Whether it is certain that no process listens at the control socket in `directory`.
pub(super) fn is_deserted(directory: &Path) -> bool {
    let none = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
    connect(directory).is_err_and(|e| none.contains(&e.kind()))
}

/// Connects to the VMM in `directory`; the kernel adds its sender to each message.
///
/// # Errors
/// The kernel's.
pub(super) fn connect_and_name_senders(directory: &Path) -> io::Result<Wire> {
    let socket = socket(SocketType::SEQPACKET, SocketFlags::NONBLOCK)?;
    set_socket_passcred(&socket, true)?;
    connect_by(&socket, directory)?;
    Ok(Wire::new(socket))
}

/// Connects to the VMM in `directory`; the socket is non-blocking from then on.
///
/// # Errors
/// The kernel's.
pub(super) fn connect(directory: &Path) -> io::Result<OwnedFd> {
    let socket = socket(SocketType::SEQPACKET, SocketFlags::NONBLOCK)?;
    connect_by(&socket, directory)?;
    Ok(socket)
}

/// Connects to the stream socket at `path`; the socket is non-blocking, and so is the call.
///
/// # Errors
/// The kernel's; that of a full backlog among them.
pub(super) fn connect_stream(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket(SocketType::STREAM, SocketFlags::NONBLOCK)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn connect_by(socket: &OwnedFd, directory: &Path) -> io::Result<()> {
    rustix::net::connect(socket, &SocketAddrUnix::new(directory.join(CONTROL_SOCKET))?)?;
    Ok(())
}

fn socket(kind: SocketType, flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC | flags, None)?)
}

/// Listens at `path`, for the daemon's user alone.
///
/// # Errors
/// The kernel's, with the path.
pub(super) fn listen(path: &Path, kind: SocketType, backlog: i32) -> anyhow::Result<OwnedFd> {
    let make = || -> io::Result<OwnedFd> {
        let socket = socket(kind, SocketFlags::empty())?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        rustix::net::listen(&socket, backlog)?;
        Ok(socket)
    };
    make().with_context(|| format!("cannot listen at {}", path.display()))
}
