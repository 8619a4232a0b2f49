use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// How long a process may take to accept a connection, or to answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to the stream socket at `path`. It takes no longer than `limit`: where the process
/// that listens there accepts nothing, the queue of its socket fills, and connecting waits for
/// room.
///
/// # Errors
/// The kernel's, and `TimedOut`.
pub(crate) fn connect(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
    let address = SocketAddrUnix::new(path)?;
    match retry_on_intr(|| rustix::net::connect(&socket, &address)) {
        Ok(()) => {}
        Err(Errno::AGAIN) => {
            let text = format!("no connection was accepted within {} s", limit.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        Err(error) => return Err(error.into()),
    }
    set_socket_timeout(&socket, Timeout::Send, None)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn listener(path: &Path, backlog: i32) -> std::os::fd::OwnedFd {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let socket = socket.unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        rustix::net::listen(&socket, backlog).unwrap();
        socket
    }

    #[test]
    fn a_process_that_accepts_nothing_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        let _listener = listener(&path, 0);
        let _first = connect(&path, ANSWER_TIMEOUT).unwrap();
        let error = connect(&path, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(connect(&directory.path().join("none"), ANSWER_TIMEOUT).is_err());
    }

    #[test]
    fn a_connection_has_no_time_limit_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        let listener = std::os::unix::net::UnixListener::from(listener(&path, 1));
        let mut ours = connect(&path, ANSWER_TIMEOUT).unwrap();
        let mut theirs = listener.accept().unwrap().0;
        assert_eq!((ours.write_timeout().unwrap(), ours.read_timeout().unwrap()), (None, None));
        theirs.write_all(b"hello").unwrap();
        let mut hello = [0; 5];
        ours.read_exact(&mut hello).unwrap();
        ours.write_all(&hello).unwrap();
        theirs.read_exact(&mut hello).unwrap();
    }
}
