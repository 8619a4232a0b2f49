use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use plimsoll_protocol::agent::{
    AGENT_VERSION, CommandEnd, Execute, Frames, FromAgent, MAX_DATA, OutputStream, ToAgent, encode,
};

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a command in a guest, with `input` as its standard input, and gives what it writes to
/// `write`. What the agent says is not trusted.
///
/// # Errors
/// The command could not be run, or the agent left before it ended.
pub(crate) fn execute(
    stream: &UnixStream,
    command: Execute,
    input: impl Read + Send + 'static,
    mut write: impl FnMut(OutputStream, &[u8]) -> Result<()>,
) -> Result<CommandEnd> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut frames = Frames::default();
    send(stream, &ToAgent::Hello(AGENT_VERSION))?;
    match hear(stream, &mut frames)? {
        FromAgent::Hello(AGENT_VERSION) => {}
        FromAgent::Hello(version) => bail!(
            "it speaks version {version} of the protocol, and plimsoll {AGENT_VERSION}: install both of one release"
        ),
        _ => bail!("it did not greet: another program listens at its port"),
    }
    send(stream, &ToAgent::Execute(command))?;
    stream.set_read_timeout(None)?;
    let writer = stream.try_clone()?;
    // It ends with the process: nothing can wake it from its reading.
    thread::spawn(move || pass_on(&writer, input));
    loop {
        match hear(stream, &mut frames)? {
            FromAgent::Output(of, bytes) => write(of, &bytes)?,
            FromAgent::Ended(end) => return Ok(end),
            FromAgent::Failed(why) => bail!("{}", printable(&why)),
            FromAgent::Hello(_) => bail!("it greeted twice"),
        }
    }
}

/// Sends what there is to read from `input`.
fn pass_on(stream: &UnixStream, mut input: impl Read) {
    let mut buffer = [0; MAX_DATA];
    loop {
        let message = match input.read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            // An input that fails ends as others do: the command tells what it lacks.
            Ok(0) | Err(_) => ToAgent::InputEnd,
            Ok(count) => ToAgent::Input(buffer[..count].to_vec()),
        };
        // A command that has ended wants no more.
        if send(stream, &message).is_err() || message == ToAgent::InputEnd {
            return;
        }
    }
}

fn send(mut stream: &UnixStream, message: &ToAgent) -> Result<()> {
    let bytes = encode(message).context("the command")?;
    stream.write_all(&bytes).context("writing to it")
}

fn hear(mut stream: &UnixStream, frames: &mut Frames<FromAgent>) -> Result<FromAgent> {
    loop {
        if let Some(message) = frames.take()? {
            return Ok(message);
        }
        let mut buffer = [0; MAX_DATA];
        match stream.read(&mut buffer) {
            Ok(0) => bail!("it hung up"),
            Ok(count) => frames.add(&buffer[..count]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                bail!("it did not answer within {} s", PATIENCE.as_secs())
            }
            Err(e) => return Err(e).context("reading from it"),
        }
    }
}

/// A text of the guest, as one line without control characters.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a command whose agent greets and then says `says`, however it is asked.
    fn with_agent(says: &[FromAgent]) -> (Result<CommandEnd>, Vec<u8>) {
        let (ours, mut agent) = UnixStream::pair().unwrap();
        for message in says {
            agent.write_all(&encode(message).unwrap()).unwrap();
        }
        agent.shutdown(std::net::Shutdown::Write).unwrap();
        let command = Execute { command: vec!["true".to_owned()], directory: None };
        let mut wrote = Vec::new();
        let end = execute(&ours, command, io::empty(), |_, bytes| {
            wrote.extend(bytes);
            Ok(())
        });
        (end, wrote)
    }

    #[test]
    fn what_a_command_writes_is_given_on_and_its_end_returned() {
        let hello = FromAgent::Hello(AGENT_VERSION);
        let output = |text: &str| FromAgent::Output(OutputStream::Out, text.into());
        let ended = FromAgent::Ended(CommandEnd::Exited(3));
        let (end, wrote) = with_agent(&[hello, output("a"), output("b"), ended]);
        assert_eq!((end.unwrap(), wrote), (CommandEnd::Exited(3), b"ab".to_vec()));
    }

    #[test]
    fn an_agent_that_is_none_is_told_in_one_harmless_line() {
        let hello = || FromAgent::Hello(AGENT_VERSION);
        let ended = || FromAgent::Ended(CommandEnd::Exited(0));
        let failed = FromAgent::Failed("no\n\u{1b}[2Jsuch".to_owned());
        for (says, why) in [
            (vec![], "hung up"),
            (vec![ended()], "did not greet"),
            (vec![FromAgent::Hello(99)], "version 99"),
            (vec![hello(), hello()], "twice"),
            (vec![hello()], "hung up"),
            (vec![hello(), failed], "no  [2Jsuch"),
        ] {
            let error = format!("{:#}", with_agent(&says).0.unwrap_err());
            assert!(error.contains(why) && !error.contains(char::is_control), "{error:?}");
        }
    }
}
