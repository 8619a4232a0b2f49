use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use plimsoll_protocol::agent::AGENT_PORT;
use plimsoll_protocol::status::{Power, VmStatus};

use crate::address::Address;
use crate::context::Context;
use crate::exit::{Status, failed};
use crate::unix_stream::{self, ANSWER_TIMEOUT};

/// Longest line that a VMM answers with: `OK 4294967295` and its end.
const MAX_LINE: usize = 16;

/// Connects to the agent in a VM's guest.
///
/// # Errors
/// The VM does not run or has no vsock, or no agent answers in its guest.
pub(crate) fn connect(vm: &VmStatus, context: &Context) -> Result<UnixStream> {
    let name = &vm.name;
    if matches!(context.client.address(), Address::Tcp { .. }) {
        bail!("the agent of {name} is reached by a unix socket on the daemon's host: run plimsoll there");
    }
    match vm.power {
        Power::Off => {
            return Err(failed(Status::Conflict, format!("{name} is off: plimsoll start {name}")));
        }
        Power::Paused => {
            return Err(failed(Status::Conflict, format!("{name} is paused: plimsoll resume {name}")));
        }
        Power::Starting | Power::On | Power::Stopping => {}
    }
    let Some(path) = &vm.vsock else {
        let text = format!(
            "{name} has no vsock: add [vsock] to its definition with plimsoll edit {name}, and restart it"
        );
        return Err(failed(Status::Conflict, text));
    };
    let stream = unix_stream::connect(path, ANSWER_TIMEOUT).map_err(|e| match e.kind() {
        ErrorKind::PermissionDenied => anyhow!("no right to reach the agent of {name}: run as root"),
        ErrorKind::TimedOut => anyhow!("{name}: {e}; see plimsoll show {name}"),
        _ => anyhow!("{name} does not listen at {}: {e}; see plimsoll show {name}", path.display()),
    })?;
    ask(&stream, ANSWER_TIMEOUT).with_context(|| {
        format!("no agent answers in {name}: start plimsoll-agent there, or wait until it has booted")
    })?;
    Ok(stream)
}

/// Asks for the agent's port, and reads the answer.
fn ask(mut stream: &UnixStream, limit: Duration) -> Result<()> {
    stream.set_read_timeout(Some(limit))?;
    let refused = |error: io::Error| match error.kind() {
        // It has hung up before it has read what it was asked.
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => anyhow!("the guest refuses the connection"),
        ErrorKind::WouldBlock => anyhow!("the guest did not answer within {} s", limit.as_secs()),
        _ => error.into(),
    };
    stream.write_all(format!("CONNECT {AGENT_PORT}\n").as_bytes()).map_err(refused)?;
    let mut line = Vec::new();
    // Byte by byte: what follows the line is the agent's.
    while line.last() != Some(&b'\n') && line.len() < MAX_LINE {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) => bail!("the guest refuses the connection"),
            Ok(_) => line.extend(byte),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(refused(error)),
        }
    }
    if !line.starts_with(b"OK ") {
        bail!("its VMM answered something else than OK");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_to_the_end_of_its_line_and_no_further() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"OK 1073741825\nhello").unwrap();
        ask(&ours, ANSWER_TIMEOUT).unwrap();
        let mut rest = [0; 5];
        (&ours).read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"hello");
        let mut asked = [0; 13];
        theirs.read_exact(&mut asked).unwrap();
        assert_eq!(&asked, b"CONNECT 1011\n");
        for answer in ["", "NO\n", "OK"] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(answer.as_bytes()).unwrap();
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
            assert!(ask(&ours, ANSWER_TIMEOUT).is_err(), "{answer:?}");
        }
    }

    #[test]
    fn a_guest_that_does_not_answer_and_one_that_hangs_up_are_told_apart() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let error = ask(&ours, Duration::from_millis(20)).unwrap_err().to_string();
        assert_eq!(error, "the guest did not answer within 0 s");
        // What it was asked is unread: the kernel resets the connection.
        drop(theirs);
        let error = ask(&ours, ANSWER_TIMEOUT).unwrap_err().to_string();
        assert_eq!(error, "the guest refuses the connection");
    }
}
