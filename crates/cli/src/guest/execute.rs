use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, bail};
use plimsoll_protocol::agent::{
    AGENT_VERSION, CommandEnd, Execute, Frames, FromAgent, MAX_DATA, OutputStream, ToAgent, encode,
};
use plimsoll_text::one_line;

use crate::unix_stream::ANSWER_TIMEOUT;

/// What a command has as its standard input.
pub(crate) struct Input<R> {
    /// What it is, for errors.
    pub(crate) name: String,
    pub(crate) from: R,
}

/// Runs a command in a guest, with `input` as its standard input, and gives what it writes to
/// `write`. What the agent says is not trusted.
///
/// # Errors
/// The command could not be run, the agent left before it ended, or `input` could not be read to
/// its end. The command is killed.
pub(crate) fn execute(
    stream: &UnixStream,
    command: Execute,
    input: Input<impl Read + Send + 'static>,
    mut write: impl FnMut(OutputStream, &[u8]) -> Result<()>,
) -> Result<CommandEnd> {
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut frames = Frames::default();
    send(stream, &ToAgent::Hello(AGENT_VERSION))?;
    match hear(stream, &mut frames)? {
        FromAgent::Hello(AGENT_VERSION) => {}
        FromAgent::Hello(version) => bail!(
            "the agent speaks version {version} of the protocol, and plimsoll {AGENT_VERSION}: install both of one \
             release"
        ),
        _ => bail!("the agent did not greet: another program listens at its port"),
    }
    send(stream, &ToAgent::Execute(command))?;
    stream.set_read_timeout(None)?;
    let writer = stream.try_clone()?;
    let (failed, failure) = mpsc::channel();
    // It ends with the process: nothing can wake it from its reading.
    thread::spawn(move || {
        if let Err(error) = pass_on(&writer, input) {
            // The error first: the end of the connection is seen after it.
            failed.send(error).ok();
            writer.shutdown(Shutdown::Both).ok();
        }
    });
    let end = attend(stream, &mut frames, &mut write);
    end.map_err(|error| failure.try_recv().unwrap_or(error))
}

/// Hears the agent until the command has ended.
fn attend(
    stream: &UnixStream,
    frames: &mut Frames<FromAgent>,
    write: &mut impl FnMut(OutputStream, &[u8]) -> Result<()>,
) -> Result<CommandEnd> {
    loop {
        match hear(stream, frames)? {
            FromAgent::Output(of, bytes) => write(of, &bytes)?,
            FromAgent::Ended(end) => return Ok(end),
            FromAgent::Failed(why) => bail!("{}", one_line(&why, usize::MAX)),
            FromAgent::Hello(_) => bail!("the agent greeted twice"),
        }
    }
}

/// Sends what there is to read from `input`, and then its end.
///
/// # Errors
/// It cannot be read. The agent has not heard of an end: a command would take the part for all.
fn pass_on(stream: &UnixStream, mut input: Input<impl Read>) -> Result<()> {
    let mut buffer = [0; MAX_DATA];
    loop {
        let message = match input.from.read(&mut buffer) {
            Ok(0) => ToAgent::InputEnd,
            Ok(count) => ToAgent::Input(buffer[..count].to_vec()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).with_context(|| format!("reading {}", input.name)),
        };
        // A command that has ended wants no more.
        if send(stream, &message).is_err() || message == ToAgent::InputEnd {
            return Ok(());
        }
    }
}

fn send(mut stream: &UnixStream, message: &ToAgent) -> Result<()> {
    let bytes = encode(message).context("the command")?;
    stream.write_all(&bytes).context("writing to the agent")
}

fn hear(mut stream: &UnixStream, frames: &mut Frames<FromAgent>) -> Result<FromAgent> {
    loop {
        if let Some(message) = frames.take()? {
            return Ok(message);
        }
        let mut buffer = [0; MAX_DATA];
        match stream.read(&mut buffer) {
            Ok(0) => bail!("the agent hung up"),
            Ok(count) => frames.add(&buffer[..count]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                bail!("the agent did not answer within {} s", ANSWER_TIMEOUT.as_secs())
            }
            Err(e) => return Err(e).context("reading from the agent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        let input = Input { name: "nothing".to_owned(), from: io::empty() };
        let end = execute(&ours, command, input, |_, bytes| {
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
    fn an_input_that_fails_is_an_error_and_never_ends_the_commands_input() {
        struct Fails;
        impl Read for Fails {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
        }
        let (ours, mut agent) = UnixStream::pair().unwrap();
        agent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let hears = thread::spawn(move || {
            agent.write_all(&encode(&FromAgent::Hello(AGENT_VERSION)).unwrap()).unwrap();
            let (mut bytes, mut frames, mut heard) = (Vec::new(), Frames::<ToAgent>::default(), Vec::new());
            agent.read_to_end(&mut bytes).unwrap();
            frames.add(&bytes);
            while let Some(message) = frames.take().unwrap() {
                heard.push(message);
            }
            heard
        });
        let command = Execute { command: vec!["cat".to_owned()], directory: None };
        let abc: &[u8] = b"abc";
        let input = Input { name: "a/file".to_owned(), from: abc.chain(Fails) };
        let error = execute(&ours, command.clone(), input, |_, _| Ok(())).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.starts_with("reading a/file: Input/output error"), "{error}");
        let heard =
            [ToAgent::Hello(AGENT_VERSION), ToAgent::Execute(command), ToAgent::Input(b"abc".to_vec())];
        assert_eq!(hears.join().unwrap(), heard);
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
