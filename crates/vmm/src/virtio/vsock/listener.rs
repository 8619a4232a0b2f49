//! Where programs of the host come in: they connect to the device's unix socket and name a port of
//! the guest, `CONNECT 1024\n`. The answer, `OK 1073741824\n` with the port that the host's end
//! has, comes when the guest has taken the connection.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::super::back::Source;
use crate::accept::{Accepted, PAUSE, accept};

/// Longest line that names a port: `CONNECT 4294967295\n`, and some room for a program that ends
/// its lines with a carriage return as well.
const MAX_LINE: usize = 20;
/// How long a program may take to name a port. It takes the place of a connection meanwhile.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that are accepted before other events are served.
const ACCEPTS: usize = 16;

/// The listening socket, and the clients that have not named a port.
#[derive(Debug)]
pub(super) struct Listener {
    /// `None` without a socket, or after it has failed.
    socket: Option<OwnedFd>,
    /// No connection is accepted before.
    closed_until: Option<Instant>,
    clients: BTreeMap<u64, Client>,
}

/// A program that has connected.
#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    /// The part of its line that has come.
    line: Vec<u8>,
    until: Instant,
}

/// How far a client has come with naming a port.
#[derive(Debug)]
pub(super) enum Handshake {
    /// It has yet to end its line.
    Pending,
    /// It asks for this port.
    Port(OwnedFd, u32),
    /// It has left or asks for something else, and is forgotten.
    Gone,
}

impl Listener {
    /// Accepts connections at a listening stream socket, which is non-blocking.
    pub(super) fn new(socket: Option<OwnedFd>) -> Self {
        Self { socket, closed_until: None, clients: BTreeMap::new() }
    }

    /// How many clients have not named a port.
    pub(super) fn waiting(&self) -> usize {
        self.clients.len()
    }

    /// Accepts connections, at most `room`. `number` numbers each. Returns why no more will be
    /// accepted, if that is so.
    pub(super) fn accept(
        &mut self,
        room: usize,
        now: Instant,
        mut number: impl FnMut() -> u64,
    ) -> Option<Errno> {
        let socket = self.socket.as_ref()?;
        for _ in 0..room.min(ACCEPTS) {
            match accept(socket) {
                Accepted::Socket(client) => {
                    let client = Client { socket: client, line: Vec::new(), until: now + HANDSHAKE_TIMEOUT };
                    self.clients.insert(number(), client);
                }
                Accepted::Nothing => break,
                Accepted::Short(_) => {
                    self.closed_until = Some(now + PAUSE);
                    break;
                }
                Accepted::Failed(error) => {
                    self.socket = None;
                    return Some(error);
                }
            }
        }
        None
    }

    /// Forgets client `number`, which need not exist.
    pub(super) fn forget(&mut self, number: u64) {
        self.clients.remove(&number);
    }

    /// Reads from client `number`, which need not exist.
    pub(super) fn read_from(&mut self, number: u64) -> Handshake {
        let Some(client) = self.clients.get_mut(&number) else { return Handshake::Gone };
        let port = match client.read() {
            Ok(None) => return Handshake::Pending,
            Ok(Some(port)) => Some(port),
            Err(Malformed) => None,
        };
        match (self.clients.remove(&number), port) {
            (Some(client), Some(port)) => Handshake::Port(client.socket, port),
            _ => Handshake::Gone,
        }
    }

    /// Forgets clients that have taken too long.
    pub(super) fn expire(&mut self, now: Instant) {
        self.clients.retain(|_, client| client.until > now);
        self.closed_until = self.closed_until.filter(|until| *until > now);
    }

    /// When [`Listener::expire`] is to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.clients.values().map(|client| client.until).chain(self.closed_until).min()
    }

    /// What to wait for. The socket has number `listener`, and is waited for while there is `room`.
    /// Without `reads` nothing is read of clients: one is ready only when it has left.
    pub(super) fn sources(&self, listener: u64, room: bool, reads: bool) -> impl Iterator<Item = Source<'_>> {
        let open = self.socket.as_ref().filter(|_| room && self.closed_until.is_none());
        let open = open.map(|fd| (listener, fd, PollFlags::IN));
        let wanted = if reads { PollFlags::IN } else { PollFlags::empty() };
        let clients = self.clients.iter().map(move |(number, client)| (*number, &client.socket, wanted));
        let all = open.into_iter().chain(clients);
        all.map(|(number, fd, flags)| Source { number, fd: fd.as_fd(), flags })
    }
}

/// A client that said something else than a port, or is gone.
struct Malformed;

impl Client {
    /// Reads its line as far as that has come, and not a byte beyond it. Returns the port once the
    /// line has ended.
    fn read(&mut self) -> Result<Option<u32>, Malformed> {
        let mut bytes = [0; MAX_LINE];
        let bytes = &mut bytes[..MAX_LINE - self.line.len()];
        let seen = match receive(&self.socket, bytes, RecvFlags::PEEK) {
            Ok(0) => return Err(Malformed),
            Ok(seen) => seen,
            Err(Errno::AGAIN) => return Ok(None),
            Err(_) => return Err(Malformed),
        };
        let end = bytes[..seen].iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(seen, |end| end + 1);
        // What was seen is there.
        if receive(&self.socket, &mut bytes[..taken], RecvFlags::empty()) != Ok(taken) {
            return Err(Malformed);
        }
        self.line.extend(&bytes[..taken]);
        match end {
            Some(_) => port_of(&self.line).map(Some).ok_or(Malformed),
            None if self.line.len() == MAX_LINE => Err(Malformed),
            None => Ok(None),
        }
    }
}

fn receive(socket: &OwnedFd, bytes: &mut [u8], flags: RecvFlags) -> Result<usize, Errno> {
    rustix::io::retry_on_intr(|| {
        rustix::net::recv(socket, &mut *bytes, flags | RecvFlags::DONTWAIT).map(|(count, _)| count)
    })
}

/// The port that `line` asks for.
fn port_of(line: &[u8]) -> Option<u32> {
    let line = std::str::from_utf8(line).ok()?.trim_end_matches(['\r', '\n']);
    let port = line.strip_prefix("CONNECT ")?;
    // Numbers with a sign would parse, too.
    port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok())?
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn client() -> (OwnedFd, Listener) {
        let (theirs, socket) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let mut listener = Listener::new(None);
        let client = Client { socket, line: Vec::new(), until: Instant::now() + HANDSHAKE_TIMEOUT };
        listener.clients.insert(7, client);
        (theirs, listener)
    }

    fn say(client: &OwnedFd, text: &str) {
        assert_eq!(rustix::io::write(client, text.as_bytes()), Ok(text.len()));
    }

    #[test]
    fn a_client_names_its_port_in_pieces_and_what_follows_is_left_in_the_socket() {
        let (client, mut listener) = client();
        assert!(matches!(listener.read_from(7), Handshake::Pending));
        say(&client, "CONN");
        assert!(matches!(listener.read_from(7), Handshake::Pending));
        assert!(matches!(listener.read_from(7), Handshake::Pending), "what was read is not read again");
        say(&client, "ECT 52\nhello");
        let Handshake::Port(socket, 52) = listener.read_from(7) else { panic!("no port") };
        let mut bytes = [0; 20];
        assert_eq!(receive(&socket, &mut bytes, RecvFlags::empty()), Ok(5));
        assert_eq!(&bytes[..5], b"hello");
        assert!(matches!(listener.read_from(7), Handshake::Gone) && listener.waiting() == 0);
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for line in [
            "CONNECT\n",
            "CONNECT x\n",
            "CONNECT +5\n",
            "connect 5\n",
            "CONNECT 4294967296\n",
            "\n",
            "CONNECT \n",
        ] {
            let (client, mut listener) = client();
            say(&client, line);
            assert!(matches!(listener.read_from(7), Handshake::Gone), "{line:?}");
        }
        let (long, mut listener) = client();
        say(&long, &"C".repeat(MAX_LINE));
        assert!(matches!(listener.read_from(7), Handshake::Gone));
        let (left, mut listener) = client();
        drop(left);
        assert!(matches!(listener.read_from(7), Handshake::Gone));
        for (line, port) in [("CONNECT 4294967295\r\n", u32::MAX), ("CONNECT 0\n", 0)] {
            assert_eq!(port_of(line.as_bytes()), Some(port));
        }
    }

    #[test]
    fn a_client_that_says_nothing_is_forgotten() {
        let (_client, mut listener) = client();
        let until = listener.deadline().unwrap();
        listener.expire(until - Duration::from_millis(1));
        assert_eq!(listener.waiting(), 1);
        listener.expire(until);
        assert_eq!((listener.waiting(), listener.deadline()), (0, None));
    }
}
