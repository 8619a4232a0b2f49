use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use plimsoll_protocol::agent::{CommandEnd, Execute, MAX_DATA};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// Where programs are looked for if the agent was started without a path.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How often a command whose client has left gets SIGHUP before it gets SIGKILL. Once is too
/// little: a shell that was about to start a program waits for it, and the program has not got the
/// signal.
const HANGUPS: u32 = 5;
/// How long it has after each to clean up: programs that do it at all remove a few files.
const GRACE: Duration = Duration::from_secs(1);

/// A command that runs, in a process group of its own. Dropping it ends the group: by SIGHUP first,
/// so that programs leave no part of their work behind, and at last by SIGKILL.
pub(crate) struct Running {
    child: Child,
    /// Readable once it has ended.
    pub(crate) ended: OwnedFd,
    pub(crate) input: Input,
    pub(crate) out: Option<OwnedFd>,
    pub(crate) error: Option<OwnedFd>,
    reaped: bool,
}

/// A command's standard input.
pub(crate) struct Input {
    /// `None`: the command takes no more.
    pipe: Option<OwnedFd>,
    waiting: VecDeque<u8>,
    /// Nothing more comes.
    over: bool,
}

/// What came of reading an output.
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    Nothing,
    End,
}

impl Running {
    /// Starts a command.
    ///
    /// # Errors
    /// What cannot be started, and why.
    pub(crate) fn start(execute: &Execute) -> Result<Self, String> {
        let Some((program, arguments)) = execute.command.split_first() else {
            return Err("there is no command".to_owned());
        };
        let directory = execute.directory.as_deref().unwrap_or("/");
        let mut command = Command::new(program);
        command.args(arguments).process_group(0).current_dir(directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if std::env::var_os("PATH").is_none() {
            command.env("PATH", PATH);
        }
        if std::env::var_os("HOME").is_none() {
            command.env("HOME", "/root");
        }
        // The error is the same whichever of the two is missing. The dot asks what chdir would.
        let mut child = command.spawn().map_err(|error| match fs::metadata(format!("{directory}/.")) {
            Err(error) => format!("the directory {directory:?} cannot be entered: {error}"),
            Ok(_) => format!("{program:?} cannot be run: {error}"),
        })?;
        let ended = Self::watch(&mut child).map_err(|e| format!("{program:?}: {e}"))?;
        let input = Input { pipe: pipe(child.stdin.take()), waiting: VecDeque::new(), over: false };
        let (out, error) = (pipe(child.stdout.take()), pipe(child.stderr.take()));
        Ok(Self { child, ended, input, out, error, reaped: false })
    }

    fn watch(child: &mut Child) -> io::Result<OwnedFd> {
        let watched = pidfd_open(Pid::from_child(child), PidfdFlags::empty());
        watched.map_err(|error| {
            child.kill().and_then(|()| child.wait()).ok();
            error.into()
        })
    }

    /// Waits until it has ended, but no longer than `limit`. Returns whether it has.
    fn ends_within(&self, limit: Duration) -> bool {
        let Ok(limit) = Timespec::try_from(limit) else { return true };
        // An error ends the wait early, and SIGKILL comes early.
        poll(&mut [PollFd::new(&self.ended, PollFlags::IN)], Some(&limit)) != Ok(0)
    }

    /// How it ended, if it has. `Err`: it has, and why nobody knows how.
    pub(crate) fn end(&mut self) -> Option<Result<CommandEnd, String>> {
        let end = match self.child.try_wait() {
            Ok(status) => Ok(end_of(status?)),
            // The kernel waits for it where the agent was started with SIGCHLD ignored.
            Err(error) => Err(format!("it has ended, and how cannot be told: {error}")),
        };
        self.reaped = true;
        Some(end)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        let group = Pid::from_child(&self.child);
        // Each signal fails where all of the group have ended meanwhile. Its input stays open until
        // they have: they would take the end of it for the end of their work.
        for _ in 0..HANGUPS {
            kill_process_group(group, Signal::HUP).ok();
            if self.ends_within(GRACE) {
                break;
            }
        }
        kill_process_group(group, Signal::KILL).ok();
        self.child.wait().ok();
    }
}

impl Input {
    /// Bytes that have to be written before more are taken.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The pipe to wait for, where there is something to write.
    pub(crate) fn source(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().filter(|_| !self.waiting.is_empty()).map(AsFd::as_fd)
    }

    /// Takes bytes for the command; what it does not want is dropped.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        if self.pipe.is_some() && !self.over {
            self.waiting.extend(bytes);
            self.flush();
        }
    }

    /// Nothing more comes.
    pub(crate) fn end(&mut self) {
        self.over = true;
        self.flush();
    }

    /// Writes what the pipe takes.
    pub(crate) fn flush(&mut self) {
        while let Some(pipe) = self.pipe.as_ref().filter(|_| !self.waiting.is_empty()) {
            match rustix::io::retry_on_intr(|| rustix::io::write(pipe, self.waiting.as_slices().0)) {
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    // The command reads no more.
                    self.pipe = None;
                    self.waiting.clear();
                }
            }
        }
        if self.over {
            self.pipe = None;
        }
    }
}

/// Reads from an output of a command.
pub(crate) fn read(output: &OwnedFd) -> Piece {
    let mut bytes = vec![0; MAX_DATA];
    match rustix::io::retry_on_intr(|| rustix::io::read(output, &mut bytes[..])) {
        Ok(0) => Piece::End,
        Ok(count) => {
            bytes.truncate(count);
            Piece::Bytes(bytes)
        }
        Err(Errno::AGAIN) => Piece::Nothing,
        Err(_) => Piece::End,
    }
}

/// A pipe to a command, on which no call waits.
fn pipe(pipe: Option<impl Into<OwnedFd>>) -> Option<OwnedFd> {
    let pipe: OwnedFd = pipe?.into();
    rustix::io::ioctl_fionbio(&pipe, true).ok()?;
    Some(pipe)
}

fn end_of(status: ExitStatus) -> CommandEnd {
    let small = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match (status.code(), status.signal()) {
        (Some(code), _) => CommandEnd::Exited(small(code)),
        (None, signal) => CommandEnd::Killed(signal.map_or(u8::MAX, small)),
    }
}
