use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use plimsoll_protocol::agent::AGENT_PORT;
use plimsoll_protocol::status::{Power, VmStatus};

use crate::address::Address;
use crate::context::Context;
use crate::exit::{Status, failed};

/// How long the guest may take to accept.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest line that a VMM answers with: `OK 4294967295` and its end.
const MAX_LINE: usize = 16;

/// Connects to the agent in a VM's guest.
///
/// # Errors
/// The VM is off or has no vsock, or no agent listens in its guest.
pub(crate) fn connect(vm: &VmStatus, context: &Context) -> Result<UnixStream> {
    let name = &vm.name;
    if matches!(context.client.address(), Address::Tcp { .. }) {
        bail!("the agent of {name} is reached by a unix socket on the daemon's host: run plimsoll there");
    }
    if vm.power == Power::Off {
        return Err(failed(Status::Conflict, format!("{name} is off: plimsoll start {name}")));
    }
    let Some(path) = &vm.vsock else {
        let text = format!(
            "{name} has no vsock: add [vsock] to its definition with plimsoll edit {name}, and restart it"
        );
        return Err(failed(Status::Conflict, text));
    };
    let stream = UnixStream::connect(path).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => anyhow!("no right to reach the agent of {name}: run as root"),
        _ => anyhow!("{name} does not listen at {}: {e}; see plimsoll show {name}", path.display()),
    })?;
    ask(&stream).with_context(|| {
        format!("no agent answers in {name}: start plimsoll-agent there, or wait until it has booted")
    })?;
    Ok(stream)
}

/// Asks for the agent's port, and reads the answer.
fn ask(mut stream: &UnixStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("CONNECT {AGENT_PORT}\n").as_bytes())?;
    let mut line = Vec::new();
    // Byte by byte: what follows the line is the agent's.
    while line.last() != Some(&b'\n') && line.len() < MAX_LINE {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            bail!("the guest refuses the connection");
        }
        line.extend(byte);
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
        ask(&ours).unwrap();
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
            assert!(ask(&ours).is_err(), "{answer:?}");
        }
    }
}
