//! The lab's agent: runs the commands that come over the virtio-serial port, one after the other.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};

use crate::wire::{self, Frames, Kind, MAX_PAYLOAD, Next, Request};

/// The first port of the first virtio-serial device; port 0 is reserved for a console.
const PORT: &str = "/dev/vport0p1";

/// How often a running command is looked at. The delay is added to every command's end.
const TICK: Duration = Duration::from_millis(5);

/// How long output may go on after the command's end: processes that it left in the background may
/// hold the pipes.
const DRAIN: Duration = Duration::from_millis(500);

/// Serves the port until the outside closes it.
pub fn main() -> Result<()> {
    let port =
        OpenOptions::new().read(true).write(true).open(PORT).with_context(|| format!("opening {PORT}"))?;
    wire::send(&port, Kind::Ready, &[])?;
    let (sender, requests) = mpsc::channel();
    let reader = port.try_clone()?;
    thread::spawn(move || read(reader, &sender));
    while let Ok(frame) = requests.recv() {
        // A kill that came after its command's end has nothing to do.
        let Kind::Run = frame.kind else { continue };
        let status = serde_json::from_slice(&frame.payload)
            .context("reading a request")
            .and_then(|request| run(&port, &request, &requests));
        let status = status.or_else(|error| {
            wire::send(&port, Kind::Err, format!("lab: {error:#}\n").as_bytes())?;
            Ok::<_, io::Error>(127)
        });
        wire::send(&port, Kind::Exit, status?.to_string().as_bytes())?;
    }
    Ok(())
}

fn read(port: File, to: &Sender<wire::Frame>) {
    let mut frames = Frames::new(port);
    while let Ok(Next::Frame(frame)) = frames.next(None) {
        if to.send(frame).is_err() {
            return;
        }
    }
}

/// Runs one command to its end, however it comes.
fn run(port: &File, request: &Request, requests: &Receiver<wire::Frame>) -> Result<i32> {
    let (program, arguments) = request.argv.split_first().context("an empty command")?;
    let mut command = Command::new(program);
    command.args(arguments).envs(request.env.iter().cloned()).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {program}"))?;
    let (sender, ends) = mpsc::channel();
    pump(port, Kind::Out, child.stdout.take(), &sender)?;
    pump(port, Kind::Err, child.stderr.take(), &sender)?;
    drop(sender);
    let status = wait(&mut child, requests)?;
    // Both pumps hang up at the end of their pipe.
    let deadline = Instant::now() + DRAIN;
    while let Ok(()) | Err(RecvTimeoutError::Timeout) = ends.recv_timeout(TICK) {
        if Instant::now() > deadline {
            break;
        }
    }
    Ok(status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255))
}

fn pump<R: Read + Send + 'static>(port: &File, kind: Kind, from: Option<R>, ends: &Sender<()>) -> Result<()> {
    let (port, ends) = (port.try_clone()?, ends.clone());
    let mut from = from.context("a command without output")?;
    thread::spawn(move || {
        let mut buffer = vec![0; MAX_PAYLOAD];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if wire::send(&port, kind, &buffer[..count]).is_err() {
                break;
            }
        }
        drop(ends);
    });
    Ok(())
}

fn wait(child: &mut Child, requests: &Receiver<wire::Frame>) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        match requests.recv_timeout(TICK) {
            Ok(frame) if frame.kind == Kind::Kill => {
                // It may have ended in the meantime.
                rustix::process::kill_process_group(Pid::from_child(child), Signal::KILL).ok();
            }
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => thread::sleep(TICK),
        }
    }
}
